"""Alias of `whirl.callbacks.cnn_callbacks`, which holds the code."""

import sys

import whirl.callbacks.cnn_callbacks
from whirl.callbacks.cnn_callbacks import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.callbacks.cnn_callbacks
