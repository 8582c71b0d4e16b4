"""Validation of a recording and of the bearing that it states."""

import numpy as np
import pytest

from whirl.data.dataset import load_dataset
from whirl.data.recording import Recording
from whirl.physics.bearings import UnknownBearingError


def test_repeated_channel_names_are_listed() -> None:
    with pytest.raises(ValueError, match=r"a\.csv: several channels are named \['DE', 'FE'\]"):
        Recording(np.zeros((5, 8)), 12_000, channels=("FE", "DE", "BA", "DE", "FE"), source="a.csv")


def test_rejects_selecting_a_channel_twice() -> None:
    recording = Recording(np.zeros((2, 8)), 12_000, channels=("DE", "FE"))
    assert recording.select_channels(["FE", "DE"]).channels == ("FE", "DE")
    with pytest.raises(ValueError, match=r"several channels are named \['DE'\]"):
        recording.select_channels(["DE", "DE"])


def test_bearing_is_stored_in_normalized_form() -> None:
    recording = Recording(np.zeros(8), 12_000, bearing="SKF 6205-2RS ; 8, 6.75, 28.5")
    assert recording.bearing == "6205; n_elements=8, ball_diameter=6.75, pitch_diameter=28.5, contact_angle=0.0"
    assert [round(bearing.orders.bpfo, 3) for bearing in recording.bearings] == [3.585, 3.053]
    assert recording.cut(0, 4).bearing == recording.bearing


@pytest.mark.parametrize("text", [None, "", "  "])
def test_a_recording_without_bearing(text: str | None) -> None:
    recording = Recording(np.zeros(8), 12_000, bearing=text)
    assert recording.bearing is None
    assert recording.bearings == ()


def test_an_unknown_designation_is_kept_and_raises_when_orders_are_needed() -> None:
    recording = Recording(np.zeros(8), 12_000, bearing="Acme 17")
    assert recording.bearing == "Acme 17"
    with pytest.raises(UnknownBearingError, match="unknown bearing 'Acme 17'"):
        _ = recording.bearings


def test_rotating_race_changes_the_orders() -> None:
    (inner,) = Recording(np.zeros(8), 12_000, bearing="6205").bearings
    (outer,) = Recording(np.zeros(8), 12_000, bearing="6205", rotating_race="outer").bearings
    assert outer.orders.ftf == pytest.approx(1 - inner.orders.ftf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bearing": "9, 41, 40"}, r"a\.csv: bearing '9, 41, 40': element_diameter_mm is 41.0"),
        ({"bearing": "bpfo=5.4, bpfi=3.6, bsf=2.4, ftf=0.4"}, r"a\.csv: .* expected bpfo < bpfi"),
        ({"rotating_race": "both"}, r"a\.csv: unknown rotating_race 'both'; expected one of: inner, outer"),
    ],
)
def test_invalid_bearings(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recording(np.zeros(8), 12_000, source="a.csv", **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rpm", 1e300), ("rpm", 0), ("rpm", float("nan")), ("sampling_rate_hz", 1e-300), ("sampling_rate_hz", -1),
        ("sampling_rate_hz", float("inf")), ("load", 1e300), ("load", float("nan")),
    ],
)  # fmt: skip
def test_rejects_numbers_that_are_not_physical(name, value):
    with pytest.raises(ValueError, match=rf"a\.csv: {name} is \S+, expected \S+ to \S+"):
        Recording(np.zeros(8), **({"sampling_rate_hz": 1000, "source": "a.csv"} | {name: value}))


@pytest.mark.parametrize(
    ("column", "text"),
    [("rpm", "1e300"), ("rpm", "1e-300"), ("sampling_rate", "1e-300"), ("bpfo", "1e300"), ("load", "1e300")],
)
def test_rejects_numbers_that_are_not_physical_in_a_manifest(column, text, tmp_path):
    np.savez(tmp_path / "a.npz", signal=np.arange(99.0) % 7, **({} if column == "sampling_rate" else {"fs": 1000}))
    (tmp_path / "manifest.csv").write_text(f"file,label,{column}\na.npz,wear,{text}\n")
    with pytest.raises(ValueError, match=rf"(manifest\.csv: line 2|a\.npz): {column} is '?1e.?300.*expected .* to "):
        load_dataset(tmp_path)
