"""Alias of `whirl.metrics`, which holds the code."""

import sys

import whirl.metrics
from whirl.metrics import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.metrics
