"""Limits of the batches of an epoch."""

import pytest

from whirl.engine.limits import Limits


@pytest.mark.parametrize(
    ("fraction", "n_batches", "expected"),
    [(0.29, 100, 29), (0.57, 100, 57), (0.3, 10, 3), (0.34, 10, 3), (0.01, 10, 1)],
)
def test_fraction_is_of_the_batches_of_the_loader(fraction, n_batches, expected):
    """0.29 * 100 is 28.999999999999996."""
    loader = range(n_batches)
    assert len(list(Limits(train_batches=fraction).of_training(loader, loader))) == expected
