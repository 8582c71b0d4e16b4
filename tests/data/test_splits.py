"""Splits keep groups together, lose no recording, train on every class, and state caveats."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whirl.data.recording import Recording
from whirl.data.splits import Split, kfold, split_recordings

RATE_HZ = 1000


def recording(label: str | None, specimen: str | None, source: str = "", seconds: float = 10.0) -> Recording:
    return Recording(np.zeros(round(seconds * RATE_HZ)), RATE_HZ, label=label, specimen=specimen, source=source)


def machines(n_machines: int, classes: str = "abc", repetitions: int = 2) -> list[Recording]:
    """Return recordings of every machine in every class, as in a simulation."""
    return [
        recording(label, f"machine {i}", f"{label}{i}.{k}")
        for i, label, k in product(range(n_machines), classes, range(repetitions))
    ]


def bearings(sizes: int, classes: str = "abc", loads: int = 4) -> list[Recording]:
    """Return recordings of one bearing per fault and size at several loads, as on test rigs."""
    return [
        recording(label, f"{label} {size}", f"{label}{size}.{load}")
        for label, size, load in product(classes, range(sizes), range(loads))
    ]


def specimens(part: list[Recording]) -> set[str | None]:
    return {r.specimen for r in part}


def sources(part: list[Recording]) -> list[str]:
    return [r.source for r in part]


def labels(part: list[Recording]) -> set[str | None]:
    return {r.label for r in part}


def span(r: Recording) -> tuple[int, int]:
    return r.start_sample, r.start_sample + r.n_samples


# one tuple per specimen: classes, repetitions, seconds
SPECIMENS = st.lists(
    st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.integers(1, 3), st.sampled_from([3.0, 10.0])),
    min_size=2,
    max_size=25,
)


def build(specimen_list) -> list[Recording]:
    return [
        recording(label, f"s{i}", f"s{i}-{label}-{k}", seconds)
        for i, (classes, repetitions, seconds) in enumerate(specimen_list)
        for label, k in product(sorted(classes), range(repetitions))
    ]


def min_specimens(recordings: list[Recording]) -> int:
    """Return the number of specimens of the rarest class."""
    pairs = {(r.label, r.specimen) for r in recordings}
    return min(Counter(label for label, _ in pairs).values())


@given(specimen_list=SPECIMENS, seed=st.integers(0, 5))
@settings(deadline=None, max_examples=150)
def test_specimens_stay_together(specimen_list, seed):
    recordings = build(specimen_list)
    if len(labels(recordings)) < 2 or min_specimens(recordings) < 2:
        with pytest.raises(ValueError, match=r"at least two classes|has only 1 specimen"):
            split_recordings(recordings, seed=seed)
        return
    split = split_recordings(recordings, seed=seed)
    assert split.by == "specimen"
    assert split.test
    assert not specimens(split.test) & specimens([*split.train, *split.val])
    assert labels(split.train) == labels(recordings)
    for label in labels(recordings) - labels(split.test):
        assert f"test contains no recording of class {label!r}" in split.notes
    if split.val_by == "specimen":
        assert not specimens(split.val) & specimens(split.train)
        assert sorted(sources([*split.train, *split.val, *split.test])) == sorted(sources(recordings))
        assert all(len({r.specimen for r in split.train if r.label == label}) >= 2 for label in labels(recordings))
    else:
        assert sorted(sources([*split.train, *split.test])) == sorted(sources(recordings))
        assert sources(split.val) == sources(split.train)
        for head, tail in zip(split.train, split.val, strict=True):
            assert span(head)[0] == 0
            assert span(tail)[0] - span(head)[1] == 0.1 * RATE_HZ
            assert span(tail)[1] == (3 if span(tail)[1] < 5000 else 10) * RATE_HZ


@given(n=st.integers(2, 30), seed=st.integers(0, 5), make=st.sampled_from([machines, bearings]))
@settings(deadline=None, max_examples=80)
def test_every_class_is_in_every_part(n, seed, make):
    recordings = make(n)
    split = split_recordings(recordings, seed=seed)
    for part in (split.train, split.val, split.test):
        assert labels(part) == set("abc")
    assert split.val_by == (
        "time" if n - len({s for s in specimens(split.test) if make is machines or s[0] == "a"}) < 3 else "specimen"
    )


@pytest.mark.parametrize("make", [machines, bearings])
def test_parts_have_the_requested_fractions_of_every_class(make):
    recordings = make(40)
    split = split_recordings(recordings, val_fraction=0.15, test_fraction=0.2)
    for label in "abc":
        of_class = [sum(r.label == label for r in part) for part in (split.train, split.val, split.test)]
        np.testing.assert_allclose(np.array(of_class) / sum(of_class), [0.68, 0.12, 0.2], atol=0.02)


def test_fractions_are_of_seconds_not_recordings():
    recordings = [
        recording(label, f"{label}{i}", f"{label}{i}", 90.0 if i == 0 else 10.0) for label in "ab" for i in range(10)
    ]
    split = split_recordings(recordings, test_fraction=0.5)
    for label in "ab":
        test_s = sum(r.duration_s for r in split.test if r.label == label)
        assert abs(test_s / 180 - 0.5) <= 0.06


def test_seed_determines_the_split():
    recordings = machines(20)
    selected = [tuple(sorted(str(s) for s in specimens(split_recordings(recordings, seed=s).test))) for s in range(8)]
    assert selected == [
        tuple(sorted(str(s) for s in specimens(split_recordings(recordings, seed=s).test))) for s in range(8)
    ]
    assert len(set(selected)) == 8


def test_unknown_specimens_are_grouped_by_source():
    recordings = [recording(label, None, f"{label}{i}") for label, i in product("ab", range(6))]
    halves = [half for r in recordings for half in (r.cut(0, 5000), r.cut(5000, 10_000))]
    split = split_recordings(halves)
    assert not set(sources(split.test)) & set(sources([*split.train, *split.val]))
    nameless = [recording(label, None) for label, _ in product("ab", range(6))]
    assert len(split_recordings(nameless).test) == 2


def test_explicit_test_specimens_are_the_test_part():
    split = split_recordings(bearings(4), test_specimens=["a 1", "b 2", "c 0"])
    assert specimens(split.test) == {"a 1", "b 2", "c 0"}
    assert split.val_by == "specimen"
    assert split.notes == ()


def test_validation_falls_back_to_time_with_a_note():
    split = split_recordings(bearings(3), test_specimens=["a 1", "b 2", "c 0"])
    assert split.val_by == "time"
    assert specimens(split.val) == specimens(split.train)
    assert len(split.notes) == 1
    assert "only 2 specimens outside the test part" in split.notes[0]
    seconds = sum(r.duration_s for r in split.val)
    assert seconds == pytest.approx(0.15 * sum(r.duration_s for r in bearings(2)))


def test_class_without_test_specimen_is_noted():
    split = split_recordings(bearings(3), test_specimens=["a 1", "b 2"])
    assert "test contains no recording of class 'c'" in split.notes


def test_parts_in_time_are_at_least_a_window_long():
    recordings = [*bearings(2), recording("a", "a 0", "short", seconds=3.0)]
    split = split_recordings(recordings, test_specimens=["a 1", "b 1", "c 1"], window_s=2.5)
    assert {r.duration_s for r in split.val} == {2.5}
    assert "short" not in sources(split.val)
    assert next(r for r in split.train if r.source == "short").duration_s == 3.0


def test_by_recording_keeps_files_together_and_notes_shared_specimens():
    recordings = [half for r in bearings(1) for half in (r.cut(0, 4000), r.cut(4000, 10_000))]
    split = split_recordings(recordings, by="recording")
    assert split.val_by == "recording"
    parts = [set(sources(part)) for part in (split.train, split.val, split.test)]
    assert sum(map(len, parts)) == len(set(sources(recordings))) == len(set.union(*parts))
    assert split.notes == ("specimens in both training and test: a 0, b 0, c 0",)


def test_by_time_cuts_every_recording():
    recordings = [recording("a", "x", "1"), recording("b", "x", "2", seconds=20.0)]
    split = split_recordings(recordings, by="time", gap_s=0.5, val_fraction=0.2)
    assert (split.by, split.val_by) == ("time", "time")
    assert "say nothing about unseen machines" in split.notes[0]
    assert [span(part[0]) for part in (split.train, split.val, split.test)] == [(0, 5500), (6000, 7500), (8000, 10_000)]
    assert [span(part[1]) for part in (split.train, split.val, split.test)] == [
        (0, 11_900),
        (12_400, 15_500),
        (16_000, 20_000),
    ]


@given(n=st.integers(2, 12), k=st.integers(2, 5), seed=st.integers(0, 3), make=st.sampled_from([machines, bearings]))
@settings(deadline=None, max_examples=60)
def test_folds_test_everything_once(n, k, seed, make):
    recordings = make(n)
    if n < k:
        with pytest.raises(ValueError, match=f"{k} folds need at least {k}"):
            kfold(recordings, k, seed=seed)
        return
    folds = kfold(recordings, k, seed=seed)
    assert len(folds) == k
    assert sorted(source for split in folds for source in sources(split.test)) == sorted(sources(recordings))
    for split in folds:
        assert not specimens(split.test) & specimens([*split.train, *split.val])
        assert labels(split.train) == labels(split.val) == labels(split.test) == set("abc")
    sizes = [len(split.test) for split in folds]
    per_specimen = len(recordings) // len(specimens(recordings))
    assert max(sizes) - min(sizes) <= per_specimen * (3 if make is bearings else 1)


@given(k=st.integers(2, 5), gap_s=st.sampled_from([0.0, 0.1, 0.3]))
def test_time_folds_test_every_sample_once(k, gap_s):
    recordings = [recording("a", "x", "1"), recording("b", "x", "2", seconds=7.3)]
    folds = kfold(recordings, k, by="time", gap_s=gap_s)
    for source, n_samples in (("1", 10_000), ("2", 7300)):
        tested = sorted(span(r) for split in folds for r in split.test if r.source == source)
        assert [start for start, _ in tested] == [0, *(stop for _, stop in tested[:-1])]
        assert tested[-1][1] == n_samples
        for split in folds:
            owner = np.zeros(n_samples, dtype=int)
            parts = [(code, r) for code, part in enumerate((split.train, split.val, split.test), 1) for r in part]
            for code, r in parts:
                if r.source == source:
                    assert not owner[slice(*span(r))].any()
                    owner[slice(*span(r))] = code
            # a complete gap separates samples of different parts
            edges = np.flatnonzero(np.diff(owner))
            runs = np.diff(edges)[owner[edges[:-1] + 1] == 0]
            assert (runs >= gap_s * RATE_HZ).all()
            assert set(owner[owner > 0]) == {1, 2, 3}


def test_by_recording_folds():
    folds = kfold(bearings(1), 4, by="recording")
    assert [len(split.test) for split in folds] == [3, 3, 3, 3]


BAD = [
    ({"recordings": []}, "no recordings"),
    ({"recordings": machines(4, "a")}, "all recordings have the class 'a', expected at least two"),
    ({"recordings": [*machines(4), recording(None, "x", "x.mat")]}, r"x\.mat: has no label"),
    (
        {"recordings": [*machines(4), recording("normal", "N", "n.mat")]},
        r"class 'normal' has only 1 specimen \(N\).*--classes.*--split time",
    ),
    (
        {"recordings": [*bearings(3), recording("normal", "N", "n.mat")], "test_specimens": ["a 0", "N"]},
        r"class 'normal' is only in the test part \(N|missing in training",
    ),
    (
        {"recordings": bearings(2), "test_specimens": ["a 7"]},
        r"unknown test specimen 'a 7'; .*xpected one of: a 0, a 1, b 0",
    ),
    ({"recordings": bearings(2), "test_specimens": []}, "expected some but not all"),
    ({"recordings": machines(2), "test_specimens": ["machine 0", "machine 1"]}, "expected some but not all"),
    (
        {"recordings": bearings(2), "test_specimens": ["a 0"], "by": "recording"},
        "test_specimens requires by='specimen', got by='recording'",
    ),
    (
        {"recordings": bearings(2), "by": "bearing"},
        "unknown split unit 'bearing'; .*xpected one of: specimen, recording, time",
    ),
    ({"recordings": bearings(2), "val_fraction": 1.0}, r"\(1\.0, 0\.2\)"),
    ({"recordings": bearings(2), "test_fraction": 0.0}, r"expected numbers in \(0, 1\)"),
    ({"recordings": bearings(2), "gap_s": -1.0}, "gap_s is -1"),
    ({"recordings": bearings(2), "by": "time", "window_s": 4.0}, r"a0\.0: 10 s are too short for 3 parts .* 4 s"),
    ({"recordings": bearings(2), "window_s": 6.0}, "too short for 2 parts of at least 6 s"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_rejects_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_recordings(**arguments)


@pytest.mark.parametrize(
    ("k", "by", "message"), [(1, "specimen", "k is 1"), (5, "recording", "5 folds need at least 5")]
)
def test_rejects_bad_folds(k, by, message):
    with pytest.raises(ValueError, match=message):
        kfold(bearings(1), k, by=by)


def test_rejects_recordings_too_short_for_time_folds():
    with pytest.raises(ValueError, match=r"10 s are too short for 5 parts"):
        kfold(bearings(1), 5, by="time", window_s=2.1)


def test_split_has_no_notes_by_default():
    split = Split([], [], [], "time", "time")
    assert split.notes == ()
