"""Shared fixtures of the search tests."""

import optuna
import pytest


@pytest.fixture(autouse=True)
def quiet_optuna():
    optuna.logging.disable_default_handler()
