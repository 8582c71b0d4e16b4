"""Augmentation of raw signals: all functions and classes under one documented module name."""

from whirl.augment.policies import AutoAugment as AutoAugment
from whirl.augment.signal_mixing import (
    MixupAugmentation as MixupAugmentation,
)
from whirl.augment.signal_mixing import (
    cutmix as cutmix,
)
from whirl.augment.signal_mixing import (
    cutmix_batch as cutmix_batch,
)
from whirl.augment.signals import (
    adversarial_augmentation as adversarial_augmentation,
)
from whirl.augment.signals import (
    amplitude_scaling as amplitude_scaling,
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
