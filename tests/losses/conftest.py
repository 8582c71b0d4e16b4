"""Fixtures of the physics losses."""

import pytest

from tests.losses.physics_cases import simulated
from whirl.losses.physics_loss_functions import PhysicalConstraintLoss
from whirl.physics.faults import JOURNAL_CLASSES


@pytest.fixture(scope="session")
def faulty():
    return simulated(JOURNAL_CLASSES, n_machines=6, recordings_per_class=1, severity_range=(0.5, 1.0))


@pytest.fixture(scope="session")
def calibrated():
    """The loss for journal bearings, calibrated on 24 other, healthy machines."""
    loss = PhysicalConstraintLoss()
    signals, metadata, _ = simulated(("healthy",), n_machines=24, recordings_per_class=1, seed=1)
    loss.fit_calibration(signals, metadata["rpm"])
    return loss
