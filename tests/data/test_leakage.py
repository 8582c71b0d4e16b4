"""Planted leaks are found, and clean splits give no false positives."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import scipy.signal
import torch

from whirl.data.leakage import LeakageError, check_leakage, find_leaks
from whirl.data.recording import Recording
from whirl.data.resampling import resample, to_common_rate
from whirl.data.simulation import simulate
from whirl.data.splits import Split, split_recordings

N = 40_960


@cache
def vibration(seed: int, n_samples: int = N, n_channels: int = 1, rpm: float = 1500.0) -> Recording:
    """Simulate shaft harmonics, a resonance excited by noise, and a noise floor, with a unique specimen."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / 20_480
    orders = np.arange(1, 12)[:, None]
    phases = rng.uniform(0, 2 * np.pi, (n_channels, 11, 1))
    lines = (np.sin(2 * np.pi * rpm / 60 * orders * t + phases) / orders).sum(axis=1)
    ring = np.exp(-np.arange(300) / 40) * np.sin(0.9 * np.arange(300))
    noise = rng.normal(size=(n_channels, n_samples + 299))
    resonance = np.stack([np.convolve(channel, ring, mode="valid") for channel in noise])
    signal = lines + 0.3 * resonance / resonance.std() + 0.05 * rng.normal(size=(n_channels, n_samples))
    return Recording(
        signal, 20_480, label="AB"[seed % 2], specimen=f"machine {seed}", source=f"machine{seed}.mat", rpm=rpm
    )


def modified(original: Recording, signal: np.ndarray, name: str = "copy") -> Recording:
    return replace(original, signal=signal, channels=(), specimen=name, source=f"{name}.mat")


def with_noise(signal: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(99).normal(size=signal.shape)
    return signal + noise * signal.std() * 10 ** (-snr_db / 20)


ORIGINAL = vibration(0, n_channels=2)
X = ORIGINAL.signal
HALF_SCALE = 2**15 / np.abs(X).max()

PLANTED = {
    "specimen": (
        "specimen",
        replace(vibration(20, n_channels=2), specimen=ORIGINAL.specimen, source="monday.mat"),
    ),
    "file": ("file", replace(ORIGINAL.cut(30_000, N), specimen="other")),
    "equal samples under another name": ("content", modified(ORIGINAL, X.copy())),
    "one channel": ("content", modified(ORIGINAL, np.stack([vibration(21).signal[0], X[1]]))),
    "overlapping cut": ("overlap", replace(ORIGINAL.cut(20_000, N), specimen="other")),
    "gain and offset": ("near-duplicate", modified(ORIGINAL, 4.7 * X + 0.89)),
    "sign": ("near-duplicate", modified(ORIGINAL, -X)),
    "shifted in time": ("near-duplicate", modified(ORIGINAL, X[:, 1234:])),
    "noise 30 dB down": ("near-duplicate", modified(ORIGINAL, with_noise(X, 30))),
    "half precision": ("near-duplicate", modified(ORIGINAL, X.astype(np.float16))),
    "16-bit integers": ("near-duplicate", modified(ORIGINAL, (X * HALF_SCALE).astype(np.int16))),
    "excerpt": ("near-duplicate", modified(ORIGINAL, X[:, 10_000:30_000])),
    "excerpt, modified in every way": (
        "near-duplicate",
        modified(ORIGINAL, (-9 * with_noise(X[1:, 7000:37_000], 30) + 5).astype(np.float16)),
    ),
    "channel mixed with another signal": (
        "near-duplicate",
        modified(ORIGINAL, np.stack([2 * X[1], vibration(22).signal[0]])),
    ),
}


def planted(leak: Recording, first: str, second: str) -> Split:
    """Return a split with the original in one part, the leak in another, and unrelated recordings in all parts."""
    parts: dict[str, list[Recording]] = {
        part: [vibration(seed, n_channels=2) for seed in range(1 + 3 * k, 4 + 3 * k)]
        for k, part in enumerate(("train", "val", "test"))
    }
    parts[first].append(ORIGINAL)
    parts[second].append(leak)
    return Split(**parts, by="specimen", val_by="specimen")


@pytest.mark.parametrize("name", PLANTED)
def test_finds_planted_leak(name):
    kind, leak = PLANTED[name]
    leaks = find_leaks(planted(leak, "train", "test"))
    assert kind in {found.kind for found in leaks}
    for found in leaks:
        assert (found.part_a, found.part_b) == ("train", "test")
        assert found.name_a == ORIGINAL.name
        assert found.name_b == leak.name
        assert leak.name in found.message


@pytest.mark.parametrize("parts", [("val", "test"), ("train", "val"), ("test", "train")])
def test_checks_every_pair_of_parts(parts):
    leak = PLANTED["shifted in time"][1]
    (found,) = find_leaks(planted(leak, *parts))
    assert {found.part_a, found.part_b} == set(parts)
    assert {found.name_a, found.name_b} == {ORIGINAL.name, leak.name}


def test_copies_within_one_part_are_not_a_leak():
    assert find_leaks(planted(PLANTED["gain and offset"][1], "train", "train")) == []


def test_finds_copy_at_another_rate_after_resampling():
    fast = [vibration(seed) for seed in range(3)]
    # with a different resampling method and another gain
    copy = modified(fast[0], 3 * scipy.signal.resample(fast[0].signal, N * 2 // 5, axis=1))
    slow = to_common_rate([*fast, replace(copy, sampling_rate_hz=8192)])
    (found,) = find_leaks(Split(slow[:3], [], slow[3:], "specimen", "specimen"))
    assert (found.kind, found.name_a, found.name_b) == ("near-duplicate", fast[0].name, "copy.mat")


def test_equivalent_paths_are_the_same_file():
    a = replace(ORIGINAL, source="data/run/../a.mat", specimen=None)
    b = replace(ORIGINAL, source="data/a.mat", specimen=None)
    assert {leak.kind for leak in find_leaks(Split([a], [], [b], "specimen", "specimen"))} == {"file", "overlap"}


def test_error_names_kind_and_pair():
    with pytest.raises(LeakageError) as error:
        check_leakage(planted(PLANTED["sign"][1], "train", "test"))
    message = str(error.value)
    assert message == (
        "train and test share a signal: copy.mat is a modified copy of machine0.mat; "
        "use --allow-leakage to train anyway"
    )
    assert isinstance(error.value, ValueError)


def test_error_counts_further_leaks():
    leaky = [replace(vibration(seed), specimen=f"machine {seed % 5}", source=f"{seed}") for seed in range(10)]
    with pytest.raises(LeakageError, match=r"machine 0.*machine 1.*machine 2.*; and 2 more; use --allow-leakage"):
        check_leakage(Split(leaky[:5], [], leaky[5:], "specimen", "specimen"))


def test_allowed_leaks_are_returned_and_logged(caplog):
    split = planted(PLANTED["sign"][1], "train", "test")
    assert check_leakage(split, allow_leakage=True) == find_leaks(split)
    assert "copy.mat is a modified copy of machine0.mat" in caplog.text


def test_split_by_time_leaks_specimens_and_files():
    recordings = [vibration(seed) for seed in range(6)]
    leaks = find_leaks(split_recordings(recordings, by="time"))
    assert {(leak.kind, leak.part_a, leak.part_b) for leak in leaks} == {
        (kind, part, "test") for kind in ("specimen", "file") for part in ("train", "val")
    }
    overlapping = Split([ORIGINAL.cut(0, 20_000)], [ORIGINAL.cut(19_000, N)], [vibration(1)], "specimen", "time")
    assert [leak.kind for leak in find_leaks(overlapping)] == ["overlap"]


def test_split_by_recording_leaks_specimens():
    a, b = (replace(vibration(seed), specimen="the only one") for seed in (0, 2))
    assert [leak.kind for leak in find_leaks(Split([a], [], [b], "recording", "recording"))] == ["specimen"]
    assert find_leaks(Split([a], [b], [], "recording", "recording")) == []


def test_validation_by_time_is_not_a_leak():
    split = Split([ORIGINAL.cut(0, 30_000)], [ORIGINAL.cut(31_000, N)], [vibration(3)], "specimen", "time")
    assert find_leaks(split) == []
    strict = replace(split, val_by="specimen")
    assert [(leak.kind, leak.part_b) for leak in find_leaks(strict)] == [("specimen", "val"), ("file", "val")]


def test_resampled_adjacent_cuts_do_not_overlap():
    recording = vibration(0, n_samples=20_001)
    pieces = [resample(recording.cut(*ends), 12_345) for ends in ((0, 7777), (7777, 20_001))]
    assert find_leaks(Split(pieces[:1], pieces[1:], [], "time", "time")) == []


def test_constant_and_short_signals_are_not_leaks():
    constant = [Recording(np.zeros(N), 20_480, source=f"constant{i}", specimen=f"constant{i}") for i in range(2)]
    short = [
        Recording(np.arange(n, dtype=float) % 3, 20_480, source=f"{n}", specimen=f"{n}") for n in (1, 40, 200, 1500)
    ]
    assert find_leaks(Split([constant[0], *short[:2]], [], [constant[1], *short[2:]], "specimen", "specimen")) == []


def test_empty_parts_have_no_leaks():
    assert find_leaks(Split([ORIGINAL], [], [], "specimen", "specimen")) == []


@pytest.mark.parametrize("floor", [1e-3, 1e-2, 0.1])
def test_machines_at_the_same_speed_are_not_leaks(floor):
    """Speed and impact shape are identical; phases and noise differ."""
    rng = np.random.default_rng(1)
    ring = np.exp(-np.arange(400) / 60) * np.sin(0.92 * np.arange(400))

    def machine(index: int) -> Recording:
        harmonics = vibration(index).signal[0]
        impacts = np.zeros(N)
        impacts[rng.integers(0, 512) :: 512] = 1.0
        train = np.convolve(impacts, ring)[:N]
        signal = harmonics + 3 * train + floor * rng.normal(size=N)
        return Recording(signal, 20_480, label="AB"[index % 2], specimen=f"{index}", source=f"{index}")

    assert find_leaks(split_recordings([machine(index) for index in range(16)])) == []


def test_simulated_machines_are_not_leaks():
    recordings = simulate(n_machines=6, recordings_per_class=1, n_samples=N, seed=3)
    split = split_recordings(recordings)
    assert check_leakage(split) == []
    copy = modified(split.train[5], 2 * with_noise(split.train[5].signal[:, 9000:], 30))
    (found,) = find_leaks(replace(split, test=[*split.test, copy]))
    assert (found.name_a, found.name_b) == (split.train[5].name, "copy.mat")


@pytest.mark.data
def test_real_bearings_have_only_specimen_leaks(real_data):
    recordings = cwru(real_data)
    split = split_recordings(recordings, by="recording")
    # recordings of one bearing at different loads are the most similar signals in real data
    assert {r.specimen for r in split.train} & {r.specimen for r in split.test}
    assert {leak.kind for leak in find_leaks(split)} == {"specimen"}


@pytest.mark.data
def test_finds_copies_of_real_recordings(real_data):
    recordings = cwru(real_data)
    rng = np.random.default_rng(0)
    originals, others = recordings[::3], recordings[1::3]
    copies = []
    for recording in originals:
        start = int(rng.integers(0, 60_000))
        excerpt = with_noise(recording.signal[:, start : start + 40_000], 30)
        copies.append(modified(recording, -3 * excerpt + 1, f"copy of {recording.name}"))
    leaks = find_leaks(Split(recordings, [], copies, "specimen", "specimen"))
    assert {(leak.name_a, leak.name_b) for leak in leaks} == {
        (original.name, copy.name) for original, copy in zip(originals, copies, strict=True)
    }
    assert find_leaks(Split(others, [], copies, "specimen", "specimen")) == []


def cwru(folder) -> list[Recording]:
    """Load all drive-end records with seeded faults at 12 kHz."""
    import pandas as pd
    from scipy.io import loadmat

    rows = pd.read_csv(folder / "cwru_12k_de" / "manifest.csv")
    rows = rows[rows.label != "normal"]
    recordings = []
    for row in rows.itertuples():
        key = next(key for key in row.mat_keys.split() if key.endswith("DE_time"))
        signal = loadmat(folder / "cwru_12k_de" / row.file, variable_names=[key])[key][:, 0]
        recordings.append(Recording(signal, 12_000, label=row.label, specimen=row.specimen_group, source=row.file))
    return recordings


@pytest.mark.parametrize(("n_recordings", "n_samples"), [(40, 102_400), (200, 20_480)])
def test_independent_noise_is_not_a_leak(n_recordings, n_samples):
    noise = np.random.default_rng(0).standard_normal((n_recordings, n_samples), dtype=np.float32)
    recordings = [
        Recording(signal, 20_480, label="AB"[i % 2], specimen=f"{i % 40}", source=f"{i}")
        for i, signal in enumerate(noise)
    ]
    assert find_leaks(split_recordings(recordings)) == []


def test_accepts_read_only_samples():
    frozen = vibration(5).signal.copy()
    frozen.flags.writeable = False
    assert find_leaks(Split([ORIGINAL], [], [replace(vibration(5), signal=frozen)], "specimen", "specimen")) == []


def test_thread_setting_is_restored():
    before = torch.get_num_threads()
    find_leaks(Split([ORIGINAL], [], [vibration(3)], "specimen", "specimen"))
    assert torch.get_num_threads() == before
