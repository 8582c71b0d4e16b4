"""Alias of `whirl.augment.advanced_augmentation`, which holds the code."""

import sys

import whirl.augment.advanced_augmentation
from whirl.augment.advanced_augmentation import *  # noqa: F403  (for type checkers)

sys.modules[__name__] = whirl.augment.advanced_augmentation
