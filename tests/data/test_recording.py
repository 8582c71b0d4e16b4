"""A recording that makes no sense is refused with a message that names what is wrong."""

import numpy as np
import pytest

from whirl.data.recording import Recording


def test_channels_of_the_same_name_are_named() -> None:
    with pytest.raises(ValueError, match=r"a\.csv: several channels are named \['DE', 'FE'\]"):
        Recording(np.zeros((5, 8)), 12_000, channels=("FE", "DE", "BA", "DE", "FE"), source="a.csv")


def test_a_channel_cannot_be_selected_twice() -> None:
    recording = Recording(np.zeros((2, 8)), 12_000, channels=("DE", "FE"))
    assert recording.select_channels(["FE", "DE"]).channels == ("FE", "DE")
    with pytest.raises(ValueError, match=r"several channels are named \['DE'\]"):
        recording.select_channels(["DE", "DE"])
