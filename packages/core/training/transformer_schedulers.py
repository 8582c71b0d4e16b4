"""Alias of `whirl.optim.transformer_schedulers`, which holds the code."""

import sys

import whirl.optim.transformer_schedulers
from whirl.optim.transformer_schedulers import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.optim.transformer_schedulers
