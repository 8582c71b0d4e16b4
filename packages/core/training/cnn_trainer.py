"""Alias of `whirl.training.cnn_trainer`, which holds the code."""

import sys

import whirl.training.cnn_trainer
from whirl.training.cnn_trainer import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.training.cnn_trainer
