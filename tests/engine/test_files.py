"""Files are written atomically."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from whirl.engine.files import (
    atomic_write,
    load_checkpoint_file,
    save_checkpoint_file,
    write_json,
    write_text,
)


def test_failed_write_leaves_the_old_file_only(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="disk"), atomic_write(path) as file:
        file.write(b"half of the ne")
        raise RuntimeError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_the_old_checkpoint_and_names_the_file(tmp_path):
    """A limit on the size of files makes the same write fail as a full disk does."""
    code = f"""
import resource, torch
from whirl.engine.files import save_checkpoint_file
save_checkpoint_file({str(tmp_path / "c.pt")!r}, {{"weights": torch.zeros(10)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint_file({str(tmp_path / "c.pt")!r}, {{"weights": torch.zeros(100_000)}})
except OSError as error:
    print(error.filename, error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1)[0] == str(tmp_path / "c.pt")
    assert len(load_checkpoint_file(tmp_path / "c.pt")["weights"]) == 10
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_files_have_default_permissions(tmp_path):
    write_text(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_has_only_finite_numbers(tmp_path):
    value = {"loss": [1.0, math.nan, np.float32(2), math.inf], "tensor": torch.tensor([1, 2]), "n": np.int64(3)}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "loss": [1.0, None, 2.0, None], "tensor": [1, 2], "n": 3
    }  # fmt: skip


def test_checkpoint_round_trip(tmp_path):
    saved = {"weights": torch.randn(3), "epoch": 4, "names": ["a"]}
    save_checkpoint_file(tmp_path / "c.pt", saved)
    loaded = load_checkpoint_file(tmp_path / "c.pt")
    assert torch.equal(loaded.pop("weights"), saved.pop("weights"))
    assert loaded == saved


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "c.pt"
    save_checkpoint_file(path, {"weights": torch.randn(1000)})
    intact = path.read_bytes()
    path.write_bytes({"truncated": intact[: len(intact) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(ValueError, match=r"c\.pt: not a readable checkpoint"):
        load_checkpoint_file(path)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"c\.pt"):
        load_checkpoint_file(tmp_path / "c.pt")
