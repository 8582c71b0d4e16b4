"""Numbers of every kind give the same augmentation: NumPy scalars, zero-dimensional arrays and tensors."""

import numpy as np
import pytest
import torch

from whirl import augment
from whirl.augment.policies import AutoAugment

SIGNALS, LABELS = torch.randn(4, 2, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
CALLS = {
    "time_masking": lambda f, i, g: augment.time_masking(SIGNALS, i(10), i(2), generator=g),
    "gaussian_noise": lambda f, i, g: augment.gaussian_noise_augmentation(SIGNALS, f(0.5), generator=g),
    "amplitude_scaling": lambda f, i, g: augment.amplitude_scaling(SIGNALS, (f(0.5), f(1.5)), generator=g),
    "time_shift": lambda f, i, g: augment.time_shift(SIGNALS, i(10), generator=g),
    "cutmix": lambda f, i, g: augment.cutmix(SIGNALS[:1], SIGNALS[1:2], i(0), i(1), f(1.0), generator=g)[1],
    "cutmix_batch": lambda f, i, g: augment.cutmix_batch(SIGNALS, LABELS, f(0.5), f(0.5), generator=g)[0],
    "mixup": lambda f, i, g: augment.MixupAugmentation(f(0.5), num_classes=i(3))(SIGNALS, LABELS, generator=g)[1],
    "patch_jitter": lambda f, i, g: augment.patch_jitter(SIGNALS, f(0.5), generator=g),
    "patch_cutout": lambda f, i, g: augment.patch_cutout(SIGNALS, i(1), i(1), generator=g),
    "band_stop": lambda f, i, g: augment.band_stop(SIGNALS, f(100.0), f(5.0), (f(10.0), f(20.0)), generator=g),
    "speed_jitter": lambda f, i, g: augment.speed_jitter(SIGNALS, f(0.1), generator=g)[0],
    "sensor": lambda f, i, g: augment.sensor_gain_and_offset(SIGNALS, f(3.0), f(0.1), generator=g),
    "noise": lambda f, i, g: augment.additive_machine_noise(SIGNALS, (f(10.0), f(20.0)), generator=g),
    "noise_of_one_level": lambda f, i, g: augment.additive_machine_noise(SIGNALS, f(10.0), generator=g),
    "policy": lambda f, i, g: AutoAugment([[("scale", f(1.0), f(0.5))]])(SIGNALS, generator=g),
}


def double_tensor(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("number", "integer"),
    [(np.float64, np.int64), (np.float32, np.int32), (np.array, np.array), (double_tensor, torch.tensor)],
    ids=["float64", "float32", "array", "tensor"],
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_any_kind_of_number_gives_the_same_result(call, number, integer):
    expected, found = (call(*kinds, torch.Generator().manual_seed(0)) for kinds in ((float, int), (number, integer)))
    torch.testing.assert_close(found, expected)
