"""What all tests share."""

import logging
import os
import warnings
from pathlib import Path

import pytest
import torch

REAL_DATA = Path(os.environ.get("WHIRL_REAL_DATA", "absent"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("WHIRL_REAL_DATA names no folder of real recordings (they have no licence to be shipped)")
    return REAL_DATA


@pytest.fixture(autouse=True)
def settings_of_the_process():
    """The command sets up logging, warnings and threads for its process; one test's must not be the next one's."""
    formatwarning, threads = warnings.formatwarning, torch.get_num_threads()
    yield
    logging.getLogger("whirl").setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    warnings.formatwarning = formatwarning
    torch.set_num_threads(threads)
