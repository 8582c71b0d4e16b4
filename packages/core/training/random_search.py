"""Alias of `whirl.tuning.random_search`, which holds the code."""

import sys

import whirl.tuning.random_search
from whirl.tuning.random_search import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.tuning.random_search
