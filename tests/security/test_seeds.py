"""What fuzzing found stays found, and files that break off anywhere are refused."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FUZZ = runpy.run_path(str(Path(__file__).with_name("fuzz_readers.py")))
SEEDS = Path(__file__).with_name("seeds")
# pyuff leaves the file open that it writes.
LENIENT = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_there_are_seeds_of_every_kind_and_they_are_small() -> None:
    seeds = list(SEEDS.iterdir())
    assert {kind_of(seed) for seed in seeds} == set(FUZZ["KINDS"])
    assert sum(seed.stat().st_size for seed in seeds) < 200_000


def kind_of(seed: Path) -> str:
    return seed.suffix or "manifest.csv"


@pytest.mark.parametrize("kind", FUZZ["KINDS"])
def test_every_seed_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path, read = FUZZ["target"](kind, tmp_path)
    for seed in SEEDS.iterdir():
        if kind_of(seed) == kind:
            path.write_bytes(seed.read_bytes())
            assert FUZZ["why_wrong"](path, read) == "", seed.name


@LENIENT
@pytest.mark.parametrize(
    ("kind", "step", "whole"),
    # Such files do not say how many segments or data sets they have: cut between two, what is left is whole.
    [(".tdms", 3, {(2, 40), (2, 80)}), (".uff", 11, {(1, 40), (2, 40)})],
)
def test_a_file_that_breaks_off_within_a_block_is_refused(
    kind: str, step: int, whole: set[tuple[int, int]], tmp_path: Path
) -> None:
    path, read = FUZZ["target"](kind, tmp_path)
    for data in FUZZ["KINDS"][kind](tmp_path):
        # Around the end of a data set byte by byte.
        ends = {match.end() + shift for match in re.finditer(rb"    -1", data) for shift in range(-8, 9)}
        sizes = sorted({*range(0, len(data), step), *(end for end in ends if end < len(data))})
        shapes = [shape_of(path, data[:size], read) for size in sizes]
        assert set(filter(None, shapes)) <= whole
        assert shapes.count(None) > 0.9 * len(shapes)


def shape_of(path: Path, data: bytes, read: Callable[[], Any]) -> tuple[int, int] | None:
    """What is read of a file, None where it is refused by name."""
    path.write_bytes(data)
    try:
        return read().signal.shape
    except ValueError as refusal:
        if str(path) in str(refusal):
            return None
        raise
