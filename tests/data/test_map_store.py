"""MapDataset: equality with maps computed on the fly, reuse of files, and killed processes."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from whirl.data import map_store
from whirl.data.loaders import make_loader
from whirl.data.map_store import MapDataset
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.dsp.time_frequency import KINDS, TimeFrequency


def make_windows(seed: int = 0, rpm: float = 1800.0, n_samples: int = 20 * 1024) -> WindowDataset:
    noise = np.random.default_rng(seed).normal(size=(2, n_samples))
    return WindowDataset([Recording(noise, 2048, label=label, rpm=rpm) for label in "ab"], "ab", window=1024)


def make_representation(kind: str = "stft", **others) -> TimeFrequency:
    return TimeFrequency(kind, 2048, 16, 8, **others)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_equal_those_computed_on_the_fly(tmp_path, kind):
    windows, representation = make_windows(), make_representation(kind)
    stored = MapDataset(windows, representation, tmp_path, batch_size=7)
    index = torch.tensor([31, 4, 4])
    signals, targets, metadata = windows[index]
    maps, stored_targets, stored_metadata = stored[index]
    torch.testing.assert_close(maps, representation(signals, metadata), atol=1e-6, rtol=0)
    assert torch.equal(stored_targets, targets)
    assert {name: values.tolist() for name, values in stored_metadata.items()} == {
        name: values.tolist() for name, values in metadata.items()
    }
    assert torch.equal(stored[31][0], maps[0])
    assert torch.equal(stored[[31, 4, 4]][0], maps)
    assert torch.equal(stored[4:5][0], maps[1:2])


def test_reuses_existing_maps(tmp_path, monkeypatch):
    first = MapDataset(make_windows(), make_representation(), tmp_path)
    monkeypatch.setattr(MapDataset, "_compute", None)
    second = MapDataset(make_windows(), make_representation(), tmp_path)
    assert second.path == first.path
    assert torch.equal(second[:][0], first[:][0])


@pytest.mark.parametrize(
    "other",
    [
        lambda folder: MapDataset(make_windows(seed=1), make_representation(), folder),
        lambda folder: MapDataset(make_windows(rpm=1801), make_representation(), folder),
        lambda folder: MapDataset(make_windows(n_samples=19 * 1024), make_representation(), folder),
        lambda folder: MapDataset(make_windows(), make_representation(window="boxcar"), folder),
        lambda folder: MapDataset(make_windows(), make_representation("cwt"), folder),
    ],
    ids=["signals", "speed", "length", "parameters", "kind"],
)
def test_file_depends_on_windows_and_parameters(tmp_path, other):
    assert other(tmp_path).path != MapDataset(make_windows(), make_representation(), tmp_path).path


def test_file_depends_on_the_code(tmp_path, monkeypatch):
    first = MapDataset(make_windows(), make_representation(), tmp_path)
    monkeypatch.setattr(map_store, "_DSP_MODULES", ("envelope",))
    assert MapDataset(make_windows(), make_representation(), tmp_path).path != first.path


def test_works_in_a_loader_with_workers(tmp_path):
    stored = MapDataset(make_windows(), make_representation(), tmp_path)
    assert len(pickle.dumps(stored)) < 2 * stored.windows[:][0].nbytes  # contains the windows, but not the maps
    maps = torch.cat([batch[0] for batch in make_loader(stored, 16, num_workers=1)])
    assert torch.equal(maps, stored[:][0])
    maps += 1  # batches are writable
    assert torch.equal(maps - 1, stored[:][0] + 1 - 1)


WRITER = """
import sys, time, torch
from whirl.data import map_store
sys.path.insert(0, sys.argv[1])
from test_map_store import MapDataset, make_representation, make_windows
map_store._FLUSH_BYTES = 16 * 8 * 2 * 4 * 4  # flush after four maps
compute = MapDataset._compute
def compute_slowly(self, rows):
    time.sleep(0.02)
    return compute(self, rows)
MapDataset._compute = compute_slowly
print("started", flush=True)
MapDataset(make_windows(), make_representation(), sys.argv[2], batch_size=2)
"""


def test_killed_process_leaves_complete_rows_and_the_next_one_continues(tmp_path, monkeypatch):
    arguments = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(tmp_path)]
    writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        wait_until(lambda: any(np.fromfile(file, np.uint8, 40).sum() >= 8 for file in tmp_path.iterdir()))
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    computed = []
    compute = MapDataset._compute
    monkeypatch.setattr(MapDataset, "_compute", lambda self, rows: computed.extend(rows) or compute(self, rows))
    stored = MapDataset(make_windows(), make_representation(), tmp_path)
    assert 0 < len(computed) <= 32
    signals, _, metadata = stored.windows[:]
    torch.testing.assert_close(stored[:][0], make_representation()(signals, metadata), atol=1e-5, rtol=0)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_error_on_full_disk_names_the_file(tmp_path, monkeypatch):
    def raise_disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", raise_disk_full)
    with pytest.raises(OSError, match=r"No space left.*\.maps"):
        MapDataset(make_windows(), make_representation(), tmp_path)
