"""Memory and progress of reading and checking recordings."""

import sys
from pathlib import Path

import numpy as np
import pytest

from whirl.data import progress
from whirl.data.inspection import inspect_dataset
from whirl.data.quality import longest_run, profile_of
from whirl.data.recording import Recording

N_SAMPLES = 12_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inspection_takes_little_more_memory_than_a_recording(dtype, tmp_path):
    """A recording has float32 samples, whatever those of its file are."""
    (tmp_path / "wear").mkdir()
    samples = np.random.default_rng(0).random((1, 1_000_000)).astype(dtype)
    np.save(tmp_path / "wear" / "small.npy", samples)
    inspect_dataset(tmp_path, sampling_rate_hz=25_600)  # imports what reading needs
    np.save(tmp_path / "wear" / "small.npy", np.tile(samples, N_SAMPLES // 1_000_000))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    inspect_dataset(tmp_path, sampling_rate_hz=25_600)
    assert peak_bytes() - before < 1.3 * 4 * N_SAMPLES


def peak_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


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
