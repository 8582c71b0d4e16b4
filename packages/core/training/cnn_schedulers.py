"""Alias of `whirl.optim.cnn_schedulers`, which holds the code."""

import sys

import whirl.optim.cnn_schedulers
from whirl.optim.cnn_schedulers import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.optim.cnn_schedulers
