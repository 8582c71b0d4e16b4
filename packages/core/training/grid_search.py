"""Alias of `whirl.tuning.grid_search`, which holds the code."""

import sys

import whirl.tuning.grid_search
from whirl.tuning.grid_search import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.tuning.grid_search
