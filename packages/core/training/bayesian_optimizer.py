"""Alias of `whirl.tuning.bayesian_optimizer`, which holds the code."""

import sys

import whirl.tuning.bayesian_optimizer
from whirl.tuning.bayesian_optimizer import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.tuning.bayesian_optimizer
