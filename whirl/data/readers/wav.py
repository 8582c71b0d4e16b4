"""Sound files (.wav)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from whirl.data.reading import Content, register_reader


@register_reader(".wav")
def read_wav(path: Path) -> Content:
    """Samples and rate; integers are scaled to [-1, 1], the recorder's full scale."""
    from scipy.io import wavfile

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=wavfile.WavFileWarning)
        warnings.filterwarnings("error", "Reached EOF prematurely", category=wavfile.WavFileWarning)
        rate, samples = wavfile.read(path)
    return Content(_full_scale(np.atleast_2d(samples.T)), sampling_rate_hz=float(rate))


def _full_scale(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype == np.uint8:  # 8 bits are the only width stored without a sign
        return (samples.astype(np.float32) - 128) / 128
    return samples / -float(np.iinfo(samples.dtype).min)
