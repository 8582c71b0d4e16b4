"""Alias of `whirl.callbacks.callbacks`, which holds the code."""

import sys

import whirl.callbacks.callbacks
from whirl.callbacks.callbacks import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.callbacks.callbacks
