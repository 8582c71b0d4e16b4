"""Spilled recordings equal those in memory, take none of it, and leave nothing behind."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from whirl.data.memmap import mapped_block, to_mmap
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset


def make(n_recordings: int, n_channels: int = 2, n_samples: int = 5000, seed: int = 0) -> list[Recording]:
    draw = np.random.default_rng(seed)
    return [
        Recording(draw.normal(size=(n_channels, n_samples + 7 * i)), 8000, label="ab"[i % 2], rpm=1500 + i)
        for i in range(n_recordings)
    ]


def anonymous_bytes() -> int:
    """Memory that belongs to no file and cannot be dropped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_windows_over_spilled_recordings_are_the_same_bits(tmp_path):
    recordings = make(5)
    mapped = to_mmap(iter(recordings), tmp_path)
    # a part of a split, cut in time and in another order
    part = [mapped[3].cut(100, 4100), mapped[0], mapped[4]]
    same = [recordings[3].cut(100, 4100), recordings[0], recordings[4]]
    ours, theirs = (WindowDataset(r, ("a", "b"), window=256, hop=100) for r in (part, same))
    everything = torch.randperm(len(theirs), generator=torch.Generator().manual_seed(0))
    for a, b in zip(ours[everything][:2], theirs[everything][:2], strict=True):
        assert torch.equal(a, b)
    for name, values in theirs[everything][2].items():
        assert torch.equal(ours[everything][2][name], values), name
    assert mapped_block(part) is not None


def test_recordings_are_equal_and_the_file_has_no_name(tmp_path):
    recordings = make(3)
    mapped = to_mmap(recordings, tmp_path / "new")
    for a, b in zip(mapped, recordings, strict=True):
        assert np.array_equal(a.signal, b.signal)
        assert (a.rpm, a.label, a.sampling_rate_hz) == (b.rpm, b.label, b.sampling_rate_hz)
    assert list((tmp_path / "new").iterdir()) == []


def test_writing_to_an_array_changes_this_process_only(tmp_path):
    first, second = to_mmap(make(2, n_samples=50), tmp_path)
    before = second.signal.copy()
    first.signal[:] = 0
    assert not first.signal.any()
    assert np.array_equal(second.signal, before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_samples_take_no_memory(tmp_path):
    n_recordings, n_samples = 60, 500_000  # 120 MB
    draw = (Recording(np.full((1, n_samples), i, dtype=np.float32), 8000, label="a") for i in range(n_recordings))
    gc.collect()
    before = anonymous_bytes()
    windows = WindowDataset(to_mmap(draw, tmp_path), ("a",), window=1000)
    # a recording, its copy for the disk and the table of windows may be in memory, but not the rest
    for start in range(0, len(windows), 5000):
        assert windows[torch.arange(start, min(start + 500, len(windows)))][0].shape[1:] == (1, 1000)
    assert anonymous_bytes() - before < 40e6


def test_recordings_of_differing_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has 1 channels, recording has 2"):
        to_mmap([*make(1), *make(1, n_channels=1)], tmp_path)
    assert to_mmap([], tmp_path) == []


def test_a_full_disk_names_the_folder(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            to_mmap(make(3), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
