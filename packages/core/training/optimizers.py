"""Alias of `whirl.optim.optimizers`, which holds the code."""

import sys

import whirl.optim.optimizers
from whirl.optim.optimizers import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.optim.optimizers
