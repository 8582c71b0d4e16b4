"""Callbacks: early stopping, checkpoints, learning rates, gradients, timing, experiment loggers."""

import lazy_loader

# Public names are listed once, in __init__.pyi; a module is imported when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
