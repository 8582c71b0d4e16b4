"""Alias of `whirl.training.pinn_trainer`, which holds the code."""

import sys

import whirl.training.pinn_trainer
from whirl.training.pinn_trainer import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.training.pinn_trainer
