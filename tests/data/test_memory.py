"""Memory and progress of reading and checking recordings."""

import errno
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from whirl.data import progress
from whirl.data.inspection import inspect_dataset
from whirl.data.quality import longest_run, profile_of
from whirl.data.readers.times import is_even_axis, is_increasing, rate_from_times
from whirl.data.reading import read
from whirl.data.recording import Recording

N_SAMPLES = 12_000_000


def save_array(file, signal):
    np.save(file.with_suffix(".npy"), signal)


def save_stored(file, signal):
    np.savez(file, signal=signal, fs=25_600)


def save_deflated(file, signal):
    archive = zipfile.ZipFile(file.with_suffix(".npz"), "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("x.npy", "w", force_zip64=True) as member:
        np.save(member, np.round(signal[0], 1))


def save_channels(file, signal):
    half = signal.shape[1] // 2
    np.savez(file, de=signal[0, :half], fe=signal[0, half:], fs=25_600)


def save_with_times(file, signal):
    np.savez(file, time=np.arange(signal.shape[1]) / 25_600, de=signal[0])


def save_matrix_with_times(file, signal):
    np.savez(file, signal=np.stack([np.arange(signal.shape[1]) / 25_600, signal[0]], axis=1))


SAVED = [(save_array, "float32"), (save_array, "float64"), (save_stored, "float32"), (save_stored, "float64"),
         (save_deflated, "float64"), (save_channels, "float64"), (save_with_times, "float64"),
         (save_matrix_with_times, "float64")]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(("save", "dtype"), SAVED)
def test_inspection_takes_little_more_memory_than_a_recording(save, dtype, tmp_path):
    """A recording has float32 samples, whatever those of its file are."""
    (tmp_path / "wear").mkdir()
    samples = np.random.default_rng(0).random((1, 1_000_000)).astype(dtype)
    save(tmp_path / "wear" / "run", samples)
    inspect_dataset(tmp_path, sampling_rate_hz=25_600)  # imports what reading needs
    save(tmp_path / "wear" / "run", np.tile(samples, N_SAMPLES // 1_000_000))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    inspection = inspect_dataset(tmp_path, sampling_rate_hz=25_600)
    assert peak_bytes() - before < 1.3 * 4 * N_SAMPLES
    assert [row.rates_hz for row in inspection.classes] == [(25_600,)]


def peak_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def test_arrays_of_an_archive_that_are_mapped_are_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    variables = {"t": np.arange(5000) / 25_600, "de": rng.normal(size=5000), "fe": rng.integers(-9, 9, 5000)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "run.npz", **variables)
        expected = read(tmp_path / "run.npz")
        with monkeypatch.context() as patch:
            patch.setattr("whirl.data.readers.arrays._MAPPED_BYTES", 1)
            patch.setattr("whirl.data.blocks._BLOCK_SAMPLES", 64)
            mapped = read(tmp_path / "run.npz")
        assert np.array_equal(mapped.signal, expected.signal)
        assert np.array_equal(mapped.signal, np.float32([variables["de"], variables["fe"]]))
        assert (mapped.channels, mapped.sampling_rate_hz) == (("de", "fe"), 25_600)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    np.savez(tmp_path / "run.npz", signal=np.zeros(5000), fs=25_600)
    monkeypatch.setattr("whirl.data.readers.arrays._MAPPED_BYTES", 1)
    monkeypatch.setattr("shutil.copyfileobj", fill)
    with pytest.raises(ValueError, match=r"run.npz: needs 0.0401 MB .*No space left.*set TMPDIR"):
        read(tmp_path / "run.npz")


def test_objects_in_a_large_archive_are_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "run.npz", signal=np.array([{}, 1.0]), fs=25_600)
    monkeypatch.setattr("whirl.data.readers.arrays._MAPPED_BYTES", 1)
    with pytest.raises(ValueError, match="pickled objects"):
        read(tmp_path / "run.npz")


def test_unsigned_samples_are_no_axis():
    """The difference of unsigned numbers is never negative."""
    assert not is_increasing(np.random.default_rng(1).permutation(3000).astype(np.uint16))
    assert not is_even_axis(np.arange(200, 0, -1, dtype=np.uint8))


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int64"])
def test_even_axes_of_any_type_are_recognized(dtype):
    first = np.iinfo(dtype).min if np.dtype(dtype).kind in "iu" and dtype != "int64" else 1
    axis = np.array([first + 4 * i for i in range(64)]).astype(dtype)
    assert is_even_axis(axis)
    assert rate_from_times(axis) == 0.25


def test_measurements_do_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    signals = [
        np.clip(rng.normal(size=5000), -2, 2), np.round(rng.normal(size=5000), 1),
        np.repeat([1.0, 2, 2, 3], [3, 60, 7, 5]),
        np.full(900, 0.1), np.where(np.arange(5000) == 4321, np.nan, 1.0),
    ]  # fmt: skip
    expected = [profile_of(Recording(signal, 1000)).channels["ch0"] for signal in signals]
    monkeypatch.setattr("whirl.data.quality._BLOCK_SAMPLES", 64)
    for signal, whole in zip(signals, expected, strict=True):
        blocks = profile_of(Recording(signal, 1000)).channels["ch0"]
        assert (blocks.mean, blocks.rms) == (pytest.approx(whole.mean, rel=1e-12), pytest.approx(whole.rms, rel=1e-12))
        names = ("n_bad", "first_bad", "step", "n_clipped", "extreme", "stuck_s", "digest")
        assert [getattr(blocks, name) for name in names] == [getattr(whole, name) for name in names]
    assert longest_run(np.repeat([1, 2], [100, 101])) == 101


def test_progress_is_shown_on_a_terminal_only(monkeypatch):
    assert progress.with_progress([1, 2], "reading") == [1, 2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(progress.with_progress([1, 2], "reading")).__name__ != "list"
    monkeypatch.setenv("RANK", "1")
    assert progress.with_progress([1, 2], "reading") == [1, 2]
