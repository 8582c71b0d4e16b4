"""Alias of `whirl.training.spectrogram_trainer`, which holds the code."""

import sys

import whirl.training.spectrogram_trainer
from whirl.training.spectrogram_trainer import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.training.spectrogram_trainer
