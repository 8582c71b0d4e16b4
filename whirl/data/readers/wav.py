"""Reader of sound files (.wav)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from whirl.data.reading import Content, register_reader


@register_reader(".wav")
def read_wav(path: Path) -> Content:
    """Read samples and sampling rate; integers are scaled to [-1, 1], the full scale of the recorder."""
    from scipy.io import wavfile

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=wavfile.WavFileWarning)
        warnings.filterwarnings("error", "Reached EOF prematurely", category=wavfile.WavFileWarning)
        rate, samples = wavfile.read(path)
    return Content(_scale_to_full_scale(np.atleast_2d(samples.T)), sampling_rate_hz=float(rate))


def _scale_to_full_scale(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype == np.uint8:  # WAV stores 8-bit samples unsigned, all other widths signed
        return (samples.astype(np.float32) - 128) / 128
    return samples / -float(np.iinfo(samples.dtype).min)
