"""Alias of `whirl.training.trainer`, which holds the code."""

import sys

import whirl.training.trainer
from whirl.training.trainer import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.training.trainer
