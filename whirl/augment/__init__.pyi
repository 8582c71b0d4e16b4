from .advanced_augmentation import (
    AutoAugment as AutoAugment,
)
from .advanced_augmentation import (
    MixupAugmentation as MixupAugmentation,
)
from .advanced_augmentation import (
    adversarial_augmentation as adversarial_augmentation,
)
from .advanced_augmentation import (
    amplitude_scaling as amplitude_scaling,
)
from .advanced_augmentation import (
    cutmix as cutmix,
)
from .advanced_augmentation import (
    cutmix_batch as cutmix_batch,
)
from .advanced_augmentation import (
    gaussian_noise_augmentation as gaussian_noise_augmentation,
)
from .advanced_augmentation import (
    time_masking as time_masking,
)
from .advanced_augmentation import (
    time_shift as time_shift,
)
from .base import (
    Augmentation as Augmentation,
)
from .base import (
    AugmentedCollate as AugmentedCollate,
)
from .base import (
    Compose as Compose,
)
from .base import (
    PerChannel as PerChannel,
)
from .base import (
    RandomApply as RandomApply,
)
from .base import (
    RandomChoice as RandomChoice,
)
from .base import (
    as_augmentation as as_augmentation,
)
from .label_mixing import mix_labels as mix_labels
from .policies import (
    RandAugment as RandAugment,
)
from .policies import (
    make_augmentation as make_augmentation,
)
from .policies import (
    register_augmentation as register_augmentation,
)
from .transformer_augmentation import (
    PatchAugmentation as PatchAugmentation,
)
from .transformer_augmentation import (
    get_heavy_augmentation as get_heavy_augmentation,
)
from .transformer_augmentation import (
    get_light_augmentation as get_light_augmentation,
)
from .transformer_augmentation import (
    get_medium_augmentation as get_medium_augmentation,
)
from .transformer_augmentation import (
    patch_cutout as patch_cutout,
)
from .transformer_augmentation import (
    patch_dropout as patch_dropout,
)
from .transformer_augmentation import (
    patch_jitter as patch_jitter,
)
from .transformer_augmentation import (
    patch_mixup as patch_mixup,
)
from .transformer_augmentation import (
    patch_permutation as patch_permutation,
)
from .transformer_augmentation import (
    temporal_shift_patches as temporal_shift_patches,
)
from .vibration import (
    additive_machine_noise as additive_machine_noise,
)
from .vibration import (
    band_stop as band_stop,
)
from .vibration import (
    polarity_flip as polarity_flip,
)
from .vibration import (
    random_phase_surrogate as random_phase_surrogate,
)
from .vibration import (
    sensor_gain_and_offset as sensor_gain_and_offset,
)
from .vibration import (
    speed_jitter as speed_jitter,
)
