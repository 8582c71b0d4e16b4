"""Fixtures and settings for all tests."""

import logging
import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from whirl.engine.precision import BF16_CAPABILITIES

REAL_DATA = Path(os.environ.get("WHIRL_REAL_DATA", "absent"))
FORCED_BF16 = os.environ.get("WHIRL_TEST_BF16")


def force_bf16(setting: str) -> None:
    """Let `torch.cpu.get_capabilities` report instructions for bfloat16 ("on"), or none ("off"), in this process.

    The suite must pass on any CPU. This is done on import, because skip conditions are evaluated when tests are
    collected.
    """
    if setting not in ("on", "off"):
        raise pytest.UsageError(f"WHIRL_TEST_BF16 is {setting!r}, expected 'on' or 'off'")
    capabilities = torch.cpu.get_capabilities() | dict.fromkeys(BF16_CAPABILITIES, setting == "on")
    torch.cpu.get_capabilities = lambda: capabilities


if FORCED_BF16 is not None:
    force_bf16(FORCED_BF16)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real recordings; skip the test if it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("WHIRL_REAL_DATA is not a folder of real recordings (their license does not allow shipping them)")
    return REAL_DATA


settings.register_profile("repeatable", derandomize=True)  # the same examples in every run
settings.load_profile("repeatable")


def seed_generators() -> None:
    """Seed the global generators: a test draws the same numbers alone, in any order and in the whole suite."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (scikit-learn draws from it)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    seed_generators()  # before fixtures of any scope


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    seed_generators()  # whatever the fixtures drew


@pytest.fixture(autouse=True)
def restore_process_settings():
    """Restore logging, warnings and threads, which the command line sets for its process."""
    formatwarning, threads = warnings.formatwarning, torch.get_num_threads()
    yield
    logging.getLogger("whirl").setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    logging.raiseExceptions = True
    warnings.formatwarning = formatwarning
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    """Create one store for all tests, as this takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of SQLAlchemy
        from mlflow import MlflowClient

        uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'runs.db'}"
        MlflowClient(uri).search_experiments()
    return uri
