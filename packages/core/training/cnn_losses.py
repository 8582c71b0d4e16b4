"""Alias of `whirl.losses.cnn_losses`, which holds the code."""

import sys

import whirl.losses.cnn_losses
from whirl.losses.cnn_losses import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.losses.cnn_losses
