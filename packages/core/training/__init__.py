"""Trainers, losses, callbacks, optimizers, schedulers, metrics, search and augmentation."""
