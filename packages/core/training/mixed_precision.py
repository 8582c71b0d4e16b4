"""Alias of `whirl.training.mixed_precision`, which holds the code."""

import sys

import whirl.training.mixed_precision
from whirl.training.mixed_precision import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.training.mixed_precision
