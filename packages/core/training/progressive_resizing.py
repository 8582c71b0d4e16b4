"""Alias of `whirl.training.progressive_resizing`, which holds the code."""

import sys

import whirl.training.progressive_resizing
from whirl.training.progressive_resizing import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.training.progressive_resizing
