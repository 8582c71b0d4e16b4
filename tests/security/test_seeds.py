"""Regression tests for inputs found by fuzzing, and for files truncated at any position."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FUZZ = runpy.run_path(str(Path(__file__).with_name("fuzz_readers.py")))
SEEDS = Path(__file__).with_name("seeds")
# pyuff does not close the files that it writes.
IGNORE_UNCLOSED_FILES = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_seeds_cover_every_kind_and_are_small() -> None:
    seeds = list(SEEDS.iterdir())
    assert {kind_of(seed) for seed in seeds} == set(FUZZ["KINDS"])
    assert sum(seed.stat().st_size for seed in seeds) < 200_000


def kind_of(seed: Path) -> str:
    return seed.suffix or "manifest.csv"


@pytest.mark.parametrize("kind", FUZZ["KINDS"])
def test_seed_is_read_or_gives_one_line_error(kind: str, tmp_path: Path) -> None:
    path, read = FUZZ["target"](kind, tmp_path)
    for seed in SEEDS.iterdir():
        if kind_of(seed) == kind:
            path.write_bytes(seed.read_bytes())
            assert FUZZ["find_fault"](path, read) == "", seed.name


@IGNORE_UNCLOSED_FILES
@pytest.mark.parametrize(
    ("kind", "step", "valid"),
    # These files do not declare their number of segments or data sets: truncated between two, they are still valid.
    [(".tdms", 3, {(2, 40), (2, 80)}), (".uff", 11, {(1, 40), (2, 40)})],
)
def test_rejects_file_truncated_within_a_block(
    kind: str, step: int, valid: set[tuple[int, int]], tmp_path: Path
) -> None:
    path, read = FUZZ["target"](kind, tmp_path)
    for data in FUZZ["KINDS"][kind](tmp_path):
        # Every byte position around the end of a data set.
        ends = {match.end() + shift for match in re.finditer(rb"    -1", data) for shift in range(-8, 9)}
        sizes = sorted({*range(0, len(data), step), *(end for end in ends if end < len(data))})
        shapes = [shape_of(path, data[:size], read) for size in sizes]
        assert set(filter(None, shapes)) <= valid
        assert shapes.count(None) > 0.9 * len(shapes)


def shape_of(path: Path, data: bytes, read: Callable[[], Any]) -> tuple[int, int] | None:
    """Return the shape of the signal, or None if reading fails with an error that names the file."""
    path.write_bytes(data)
    try:
        return read().signal.shape
    except ValueError as error:
        if str(path) in str(error):
            return None
        raise
