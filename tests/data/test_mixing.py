"""Units and lengths that are mixed in one data set."""

import logging

import numpy as np
import pytest

from whirl.data.dataset import load_dataset
from whirl.data.recording import Recording

RNG = np.random.default_rng(0)


def write(path, n_samples=20_000, **known):
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = RNG.normal(size=(1, n_samples)).astype(np.float32)
    np.savez(path, signal=signal, fs=12_000, **known)
    return signal


def test_units_of_one_quantity_are_converted(tmp_path):
    first = write(tmp_path / "x" / "a.npz", unit="m/s\u00b2")
    second = write(tmp_path / "x" / "b.npz", unit="g")
    third = write(tmp_path / "y" / "c.npz", unit="m/s^2")
    recordings = load_dataset(tmp_path)
    assert [recording.unit for recording in recordings] == ["m/s^2"] * 3
    for recording, expected in zip(recordings, (first, 9.80665 * second, third), strict=True):
        np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("other", ["mm/s", "V", "furlong"])
def test_different_quantities_are_refused(other, mmap, tmp_path):
    write(tmp_path / "data" / "x" / "a.npz", unit="g")
    write(tmp_path / "data" / "y" / "b.npz", unit=other)
    with pytest.raises(ValueError, match=rf"b\.npz: channel 'ch0' is in '{other}' .* but in 'g' \(acceleration\) in"):
        load_dataset(tmp_path / "data", mmap_dir=tmp_path / "maps" if mmap else None)


def test_the_manifest_can_state_the_unit(tmp_path):
    write(tmp_path / "a.npz", unit="g")
    write(tmp_path / "b.npz", unit="mm/s")
    (tmp_path / "manifest.csv").write_text("file,label,unit\na.npz,x,\nb.npz,x,g\n")
    assert [recording.unit for recording in load_dataset(tmp_path)] == ["g", "g"]


def test_units_of_channels_survive_saving(tmp_path):
    from whirl.data.dataset import save_dataset

    one = Recording(RNG.normal(size=(2, 64)), 12_000, label="x", channel_units=("g", "m/s^2"))
    save_dataset([one], tmp_path / "set")
    (again,) = load_dataset(tmp_path / "set")
    assert again.units == ("g", "m/s^2")
    np.testing.assert_array_equal(again.signal, one.signal)


def test_unknown_unit_beside_a_known_one_is_reported(tmp_path, caplog):
    write(tmp_path / "x" / "a.npz", unit="g")
    write(tmp_path / "x" / "b.npz")
    with caplog.at_level(logging.WARNING):
        assert [recording.unit for recording in load_dataset(tmp_path)] == ["g", ""]
    assert "b.npz states no unit, other recordings do: g" in caplog.text


def test_a_very_short_file_is_left_out_and_named(tmp_path, caplog):
    for name in "abc":
        write(tmp_path / "x" / f"{name}.npz")
    write(tmp_path / "x" / "short.npz", n_samples=100)
    write(tmp_path / "y" / "only.npz", n_samples=100)
    with caplog.at_level(logging.WARNING):
        names = [recording.source.rsplit("/", 1)[-1] for recording in load_dataset(tmp_path)]
    assert names == ["a.npz", "b.npz", "c.npz", "only.npz"], "the only recording of a class is kept"
    assert "short.npz (100 samples)" in caplog.text
