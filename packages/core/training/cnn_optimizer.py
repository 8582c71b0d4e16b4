"""Alias of `whirl.optim.cnn_optimizer`, which holds the code."""

import sys

import whirl.optim.cnn_optimizer
from whirl.optim.cnn_optimizer import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.optim.cnn_optimizer
