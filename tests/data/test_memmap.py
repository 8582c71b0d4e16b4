"""Memory-mapped recordings equal those in memory, use no memory, and leave no file behind."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from whirl.data.memmap import mapped_block, to_mmap
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset


def make(n_recordings: int, n_channels: int = 2, n_samples: int = 5000, seed: int = 0) -> list[Recording]:
    rng = np.random.default_rng(seed)
    return [
        Recording(rng.normal(size=(n_channels, n_samples + 7 * i)), 8000, label="ab"[i % 2], rpm=1500 + i)
        for i in range(n_recordings)
    ]


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process, which is not backed by a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_windows_over_mapped_recordings_are_bitwise_equal(tmp_path):
    recordings = make(5)
    mapped = to_mmap(iter(recordings), tmp_path)
    # like a part of a split: a cut, and another order
    part = [mapped[3].cut(100, 4100), mapped[0], mapped[4]]
    in_memory = [recordings[3].cut(100, 4100), recordings[0], recordings[4]]
    mapped_windows, windows = (WindowDataset(r, ("a", "b"), window=256, hop=100) for r in (part, in_memory))
    indices = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    for a, b in zip(mapped_windows[indices][:2], windows[indices][:2], strict=True):
        assert torch.equal(a, b)
    for name, values in windows[indices][2].items():
        assert torch.equal(mapped_windows[indices][2][name], values), name
    assert mapped_block(part) is not None


def test_recordings_are_equal_and_the_file_is_unlinked(tmp_path):
    recordings = make(3)
    mapped = to_mmap(recordings, tmp_path / "new")
    for a, b in zip(mapped, recordings, strict=True):
        assert np.array_equal(a.signal, b.signal)
        assert (a.rpm, a.label, a.sampling_rate_hz) == (b.rpm, b.label, b.sampling_rate_hz)
    assert list((tmp_path / "new").iterdir()) == []


def test_writing_to_an_array_does_not_affect_others(tmp_path):
    first, second = to_mmap(make(2, n_samples=50), tmp_path)
    before = second.signal.copy()
    first.signal[:] = 0
    assert not first.signal.any()
    assert np.array_equal(second.signal, before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_samples_use_no_memory(tmp_path):
    n_recordings, n_samples = 60, 500_000  # 120 MB
    recordings = (Recording(np.full((1, n_samples), i, dtype=np.float32), 8000, label="a") for i in range(n_recordings))
    gc.collect()
    before = anonymous_bytes()
    windows = WindowDataset(to_mmap(recordings, tmp_path), ("a",), window=1000)
    # one recording, its copy for writing and the window table may be in memory, but not the rest
    for start in range(0, len(windows), 5000):
        assert windows[torch.arange(start, min(start + 500, len(windows)))][0].shape[1:] == (1, 1000)
    assert anonymous_bytes() - before < 40e6


def test_rejects_different_numbers_of_channels(tmp_path):
    with pytest.raises(ValueError, match="has 1 channels, recording has 2"):
        to_mmap([*make(1), *make(1, n_channels=1)], tmp_path)
    assert to_mmap([], tmp_path) == []


def test_error_on_full_disk_names_the_folder(tmp_path):
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
