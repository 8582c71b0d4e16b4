"""Alias of `whirl.augment.transformer_augmentation`, which holds the code."""

import sys

import whirl.augment.transformer_augmentation
from whirl.augment.transformer_augmentation import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.augment.transformer_augmentation
