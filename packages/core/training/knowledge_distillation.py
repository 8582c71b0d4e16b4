"""Alias of `whirl.training.knowledge_distillation`, which holds the code."""

import sys

import whirl.training.knowledge_distillation
from whirl.training.knowledge_distillation import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.training.knowledge_distillation
