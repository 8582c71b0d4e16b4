"""Inputs that the tests of the physics losses share."""

import numpy as np
import torch

from whirl.data.simulation import simulate
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES

N = 20480  # samples in one second


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(loss, predictions):
    return torch.autograd.grad(loss, predictions)[0]


def simulated(classes, **kwargs):
    """Simulate recordings at an SNR of 10 dB; return signals [B, 1, N], metadata and targets."""
    recordings = simulate(classes=classes, n_samples=N, snr_db_range=(10, 10), **kwargs)
    names = JOURNAL_CLASSES if set(classes) <= set(JOURNAL_CLASSES) else ROLLING_CLASSES
    signals = torch.tensor(np.stack([recording.signal for recording in recordings]))
    rpm = torch.tensor([recording.rpm for recording in recordings])
    return signals, {"rpm": rpm}, torch.tensor([names.index(recording.label) for recording in recordings])
