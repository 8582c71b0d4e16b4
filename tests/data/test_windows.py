"""Windows contain the samples they refer to, for all kinds of indices; standardization; choice of the length."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset, choose_window, known_quantities, standardize

CLASSES = ("healthy", "wear", "oil_whirl")


def noise(
    n_samples: int, label: str | None = "wear", rpm: float | None = None, n_channels: int = 1, **known
) -> Recording:
    signal = np.random.default_rng(n_samples).normal(size=(n_channels, n_samples))
    return Recording(signal, known.pop("rate_hz", 12_000), label=label, rpm=rpm, **known)


@given(
    lengths=st.lists(st.integers(16, 200), min_size=1, max_size=6),
    window=st.integers(2, 16),
    hop=st.one_of(st.none(), st.integers(1, 30)),
    n_channels=st.integers(1, 3),
)
@settings(deadline=None)
def test_windows_contain_the_samples_they_refer_to(lengths, window, hop, n_channels):
    recordings = [noise(n, n_channels=n_channels) for n in lengths]
    dataset = WindowDataset(recordings, CLASSES, window, hop, standardize=False)
    step = window if hop is None else hop
    expected = [(i, start) for i, n in enumerate(lengths) for start in range(0, n - window + 1, step)]
    assert list(zip(dataset.recording_index.tolist(), dataset.starts.tolist(), strict=True)) == expected
    signals, _, metadata = dataset[:]
    assert signals.shape == (len(expected), n_channels, window)
    for signal, i, start in zip(signals, metadata["recording"].tolist(), metadata["start"].tolist(), strict=True):
        np.testing.assert_array_equal(signal, recordings[i].signal[:, start : start + window])


@pytest.fixture
def dataset() -> WindowDataset:
    recordings = [
        noise(1000, "wear", rpm=1797, n_channels=2),
        noise(700, "healthy", n_channels=2),
        noise(999, None, rpm=900, n_channels=2),
    ]
    return WindowDataset(recordings, CLASSES, window=100, hop=50)


def test_batch_has_documented_types_and_values(dataset):
    signals, targets, metadata = dataset[torch.tensor([20, 0, 45])]
    assert (signals.dtype, signals.shape, signals.is_contiguous()) == (torch.float32, (3, 2, 100), True)
    assert (targets.dtype, targets.tolist()) == (torch.int64, [0, 1, -1])
    assert list(metadata) == ["recording", "start", "rpm"]
    assert (metadata["recording"].dtype, metadata["recording"].tolist()) == (torch.int64, [1, 0, 2])
    assert (metadata["start"].dtype, metadata["start"].tolist()) == (torch.int64, [50, 0, 650])
    assert metadata["rpm"].dtype == torch.float32
    np.testing.assert_array_equal(metadata["rpm"], np.float32([np.nan, 1797, 900]))


def test_metadata_include_the_operating_point():
    recordings = [
        noise(100, load=2, load_unit="kN", metadata={"sommerfeld": 0.25, "temperature_c": 40, "severity": 1}),
        noise(100, rpm=900, load=3, load_unit="hp", metadata={"sommerfeld": "low", "temperature": 55.5}),
        noise(100, load=4, load_unit="N", metadata={"sommerfeld": float("inf"), "temperature": None}),
    ]
    dataset = WindowDataset(recordings, CLASSES, window=50)
    metadata = dataset[torch.tensor([5, 0, 2])][2]
    assert list(metadata) == ["recording", "start", "rpm", "sommerfeld", "load", "temperature"]
    expected = {"rpm": [np.nan, np.nan, 900], "sommerfeld": [np.nan, 0.25, np.nan]}
    expected |= {"load": [4, 2000, np.nan], "temperature": [np.nan, 40, 55.5]}  # a load in hp is not a force
    for name, values in expected.items():
        assert metadata[name].dtype == torch.float32
        np.testing.assert_array_equal(metadata[name], np.float32(values))
    assert {name: values.item() for name, values in dataset[0][2].items()}["load"] == 2000
    assert len(next(iter(DataLoader(dataset, batch_size=4)))[2]) == 6


def test_a_load_of_zero_and_numpy_scalars_are_known():
    idle = noise(100, load=0, load_unit="N", metadata={"temperature": np.float32(40), "sommerfeld": np.int64(2)})
    assert known_quantities([idle]) == ("sommerfeld", "load", "temperature")
    metadata = WindowDataset([idle], CLASSES, 100)[0][2]
    assert [metadata[name].item() for name in ("sommerfeld", "load", "temperature")] == [2, 0, 40]


def test_quantities_can_be_fixed_for_several_data_sets():
    warm, unknown = noise(100, metadata={"temperature": 40}), noise(100)
    assert known_quantities([unknown, warm]) == ("temperature",)
    assert known_quantities([unknown]) == ()
    metadata = WindowDataset([unknown], CLASSES, 50, quantities=["temperature"])[:][2]
    assert metadata["temperature"].isnan().tolist() == [True, True]
    assert list(WindowDataset([warm], CLASSES, 50, quantities=())[0][2]) == ["recording", "start", "rpm"]


def test_sizes(dataset):
    assert len(dataset) == 19 + 13 + 18
    assert dataset.n_channels == 2
    assert dataset.sampling_rate_hz == 12_000
    assert dataset.class_counts.tolist() == [13, 19, 0]
    assert dataset.targets.tolist() == [1] * 19 + [0] * 13 + [-1] * 18


def same(a, b) -> bool:
    return (
        torch.equal(a[0], b[0])
        and torch.equal(a[1], b[1])
        and all(torch.equal(a[2][name].nan_to_num(-1), b[2][name].nan_to_num(-1)) for name in a[2])
    )


@pytest.mark.parametrize("index", [[3, 1, 49], (3, 1, 49), np.array([3, 1, 49]), [3, 1, -1]])
def test_lists_arrays_and_tensors_are_equivalent_indices(dataset, index):
    assert same(dataset[index], dataset[torch.tensor([3, 1, 49])])


def test_slices_and_single_windows(dataset):
    assert same(dataset[10:30:7], dataset[[10, 17, 24]])
    for index in (0, 31, -1, np.int64(5)):
        signal, target, metadata = dataset[index]
        assert signal.shape == (2, 100)
        assert target.shape == metadata["rpm"].shape == ()
        batch = dataset[[int(index)]]
        assert same((signal[None], target[None], {k: v[None] for k, v in metadata.items()}), batch)
    assert len(dataset[[]][1]) == 0
    assert sum(1 for _ in dataset) == 50


@pytest.mark.parametrize(
    ("index", "error"), [(50, IndexError), (-51, IndexError), ([1, 50], IndexError), ([0.5], TypeError)]
)
def test_rejects_bad_indices(dataset, index, error):
    with pytest.raises(error):
        dataset[index]


def test_plain_loader_with_default_collate(dataset):
    batches = list(DataLoader(dataset, batch_size=16))
    assert [len(targets) for _, targets, _ in batches] == [16, 16, 16, 2]
    assert same(batches[1], dataset[16:32])


def test_custom_collate_gets_single_windows(dataset):
    loader = DataLoader(dataset, batch_size=8, collate_fn=lambda samples: [len(samples), samples[0][0].shape])
    assert next(iter(loader)) == [8, (2, 100)]


def test_standardization_equals_its_formula(dataset):
    plain = WindowDataset([noise(1000, n_channels=2)], CLASSES, 100, 50, standardize=False)[:][0].double()
    expected = (plain - plain.mean(-1, keepdim=True)) / plain.std(-1, correction=0, keepdim=True)
    signals = dataset[:19][0]
    torch.testing.assert_close(signals.double(), expected, atol=1e-5, rtol=1e-5)


@given(
    gain=st.floats(1e-9, 1e9),
    offset=st.floats(-1e3, 1e3),
    sign=st.sampled_from([-1, 1]),
)
@settings(deadline=None)
def test_standardization_removes_gain_and_offset(gain, offset, sign):
    signal = noise(512).signal[0].astype(float)
    changed = Recording(sign * gain * (signal + offset), 12_000)
    a, b = (WindowDataset([r], None, 64)[:][0] for r in (Recording(signal, 12_000), changed))
    torch.testing.assert_close(a, sign * b, atol=2e-6 * (10 + abs(offset)), rtol=0)
    torch.testing.assert_close(b.mean(-1), torch.zeros(8, 1), atol=1e-6 * (10 + abs(offset)), rtol=0)
    torch.testing.assert_close(b.std(-1, correction=0), torch.ones(8, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, -0.89, 1e-20, 3e4, 1e-4])
def test_constant_windows_become_zeros(value):
    signal = np.stack([np.full(300, value), noise(300).signal[0]])
    signals = WindowDataset([Recording(signal, 12_000)], None, 100)[:][0]
    assert signals[:, 0].abs().max() < 1e-3
    assert signals[:, 1].std() > 0.9
    assert torch.isfinite(signals).all()


def test_standardize_does_not_modify_its_input():
    signals = torch.tensor([[1.0, 2.0, 4.0], [5.0, 5.0, 5.0]])
    before = signals.clone()
    standardize(signals)
    assert torch.equal(signals, before)


def test_windows_are_views_until_a_batch_is_cut():
    dataset = WindowDataset([noise(100_000)], CLASSES, window=1000, hop=1)
    assert len(dataset) == 99_001
    assert len(pickle.dumps(dataset)) < 100_000 * 4 + 99_001 * 4 * 8 + 10_000


def test_pickled_windows_are_equal(dataset):
    assert same(pickle.loads(pickle.dumps(dataset))[:], dataset[:])


def test_targets_are_minus_one_without_classes():
    dataset = WindowDataset([noise(100, "wear"), noise(100, None)], None, window=50)
    assert dataset.targets.tolist() == [-1] * 4
    assert dataset.class_counts.tolist() == []


BAD = [
    ({"recordings": []}, "no recordings"),
    (
        {"recordings": [noise(100, source="a.mat")], "window": 101},
        r"a\.mat has 100 samples, fewer than the window of 101.*shorter",
    ),
    (
        {"recordings": [noise(100, "rust", source="a.mat")]},
        r"a\.mat: unknown class 'rust'; .*xpected one of: healthy, wear",
    ),
    (
        {"recordings": [noise(100, source="a.mat"), noise(100, rate_hz=48_000, source="b.mat")]},
        r"b\.mat is sampled at 48000 Hz, a\.mat at 12000 Hz.*to_common_rate",
    ),
    (
        {"recordings": [noise(100, source="a.mat"), noise(100, n_channels=2, source="b.mat")]},
        r"b\.mat has channels \['ch0', 'ch1'\], a\.mat has \['ch0'\]",
    ),
    ({"window": 1}, "window is 1, expected an integer >= 2"),
    ({"hop": 0}, "hop is 0, expected an integer >= 1"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_rejects_bad_input(arguments, message):
    arguments = {"recordings": [noise(100)], "classes": CLASSES, "window": 10} | arguments
    with pytest.raises(ValueError, match=message):
        WindowDataset(**arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rejects_nonfinite_samples(value):
    signal = noise(100, n_channels=2).signal.copy()
    signal[1, 7] = value
    with pytest.raises(ValueError, match=rf"a\.mat: sample 7 of channel 'ch1' is {value}"):
        WindowDataset([Recording(signal, 12_000, source="a.mat")], None, 10)


@pytest.mark.parametrize(
    ("rpm", "rate_hz", "seconds", "expected"),
    [
        (1797, 12_000, 10, 8192),  # 6411 are needed
        (1200, 20_480, 5, 16_384),  # exactly 16 revolutions
        (1199, 20_480, 5, 32_768),
        (1199, 20_480, 1, 17_408),  # multiple of 1024, since the power of two does not fit
        (60_000, 20_480, 5, 2048),  # the minimum
    ],
)
def test_window_contains_16_revolutions(rpm, rate_hz, seconds, expected):
    recordings = [noise(rate_hz * seconds, rpm=speed, rate_hz=rate_hz) for speed in (rpm, 60_001)]
    n_samples, reason = choose_window(recordings, rate_hz)
    assert n_samples == expected
    assert n_samples / rate_hz * rpm / 60 >= 16
    assert f"{n_samples} samples" in reason
    assert f"({rpm} rpm)" in reason
    assert "warning" not in reason


def test_window_never_exceeds_the_shortest_recording():
    long, short = noise(120_000, rpm=600), noise(6000, rpm=1797, source="short.mat")
    n_samples, reason = choose_window([long, short], 12_000)
    assert n_samples == 5120
    assert reason == (
        "warning: 5120 samples (0.427 s) contain 4.3 revolutions of the slowest recording (600 rpm); at least 16 are "
        "needed, but short.mat is only 0.5 s long"
    )
    assert choose_window([noise(700)], 12_000)[0] == 700


@pytest.mark.parametrize(("n_samples", "rate_hz"), [(3072, 10_000), (6144, 5000), (27_648, 12_000)])
def test_window_can_be_a_complete_recording(n_samples, rate_hz):
    """Duration times sampling rate is a rounding error less than the number of samples here."""
    assert int(n_samples / rate_hz * rate_hz) < n_samples
    rpm = 16 * 60 * rate_hz / n_samples + 1e-6
    assert choose_window([noise(n_samples, rpm=rpm, rate_hz=rate_hz)], rate_hz)[0] == n_samples


def test_window_length_is_at_the_target_sampling_rate():
    recording = noise(48_000 * 5, rpm=1500, rate_hz=48_000)
    assert choose_window([recording], 12_000)[0] == 8192
    assert choose_window([noise(9600, rpm=1500, rate_hz=48_000)], 12_000)[0] == 2048  # 2400 remain after resampling


def test_reason_names_the_assumed_speed():
    n_samples, reason = choose_window([noise(120_000)], 12_000)
    assert n_samples == 8192  # 16 revolutions at 1500 rpm are 7680
    assert "1500 rpm is assumed for recordings of unknown speed" in reason


@pytest.mark.parametrize(("recordings", "rate_hz"), [([], 12_000), ([noise(100)], 0.0), ([noise(100)], float("nan"))])
def test_choose_window_rejects_missing_recordings_and_bad_rate(recordings, rate_hz):
    with pytest.raises(ValueError, match=r"no recordings|sampling_rate_hz is"):
        choose_window(recordings, rate_hz)
