"""Alias of `whirl.losses.losses`, which holds the code."""

import sys

import whirl.losses.losses
from whirl.losses.losses import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.losses.losses
