"""What all tests share."""

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real recordings are not on this machine (they have no licence to be shipped)")
    return REAL_DATA
