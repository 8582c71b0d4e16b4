"""Augmentation of raw signals under the name that the reference gives it."""

from whirl.augment.policies import AutoAugment as AutoAugment
from whirl.augment.signals import (
    MixupAugmentation as MixupAugmentation,
)
from whirl.augment.signals import (
    adversarial_augmentation as adversarial_augmentation,
)
from whirl.augment.signals import (
    amplitude_scaling as amplitude_scaling,
)
from whirl.augment.signals import (
    cutmix as cutmix,
)
from whirl.augment.signals import (
    cutmix_batch as cutmix_batch,
)
from whirl.augment.signals import (
    gaussian_noise_augmentation as gaussian_noise_augmentation,
)
from whirl.augment.signals import (
    time_masking as time_masking,
)
from whirl.augment.signals import (
    time_shift as time_shift,
)
