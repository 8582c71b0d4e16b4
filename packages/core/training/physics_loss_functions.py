"""Alias of `whirl.losses.physics_loss_functions`, which holds the code."""

import sys

import whirl.losses.physics_loss_functions
from whirl.losses.physics_loss_functions import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.losses.physics_loss_functions
