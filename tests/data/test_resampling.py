"""Resampling tested by measured spectra: pass band, stop band, and removal of recorder signatures."""

import numpy as np
import pytest
from scipy.signal import find_peaks, periodogram

from whirl.data.recording import Recording
from whirl.data.resampling import band_limit, resample, to_common_rate

RATES = [(48_000, 12_000), (51_200, 20_480), (25_600, 20_480), (44_100, 12_000), (20_500, 20_480), (12_345.6, 1000)]


def tone(frequency_hz: float, rate_hz: float, seconds: float = 1.0, **fields) -> Recording:
    return Recording(np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz), rate_hz, **fields)


def middle(recording: Recording) -> np.ndarray:
    """Return the samples that are not affected by the ends of the recording."""
    return recording.signal[0, recording.n_samples // 10 : -(recording.n_samples // 10)].astype(float)


def amplitude(recording: Recording, frequency_hz: float) -> float:
    """Return the amplitude of a sine of this frequency with phase zero at the first sample."""
    t = np.arange(recording.n_samples)[recording.n_samples // 10 : -(recording.n_samples // 10)]
    t = t / recording.sampling_rate_hz
    basis = np.stack([np.sin(2 * np.pi * frequency_hz * t), np.cos(2 * np.pi * frequency_hz * t)], axis=1)
    (sine, cosine), *_ = np.linalg.lstsq(basis, middle(recording), rcond=None)
    assert abs(cosine) < 2e-3  # neither delay nor phase
    return sine


@pytest.mark.parametrize(("old_hz", "new_hz"), RATES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_pass_band_is_preserved(old_hz, new_hz, share):
    frequency_hz = share * new_hz / 2
    filtered = resample(tone(frequency_hz, old_hz, seconds=2), new_hz)
    assert filtered.sampling_rate_hz == new_hz
    assert filtered.signal.dtype == np.float32
    assert abs(20 * np.log10(amplitude(filtered, frequency_hz))) < 0.01


@pytest.mark.parametrize(("old_hz", "new_hz"), [pair for pair in RATES if pair[0] > 1.1 * pair[1]])
def test_aliases_are_80_db_down(old_hz, new_hz):
    for frequency_hz in np.linspace(new_hz / 2, 0.999 * old_hz / 2, 12):
        alias = middle(resample(tone(frequency_hz, old_hz), new_hz))
        assert 20 * np.log10(np.sqrt(2) * alias.std()) < -80


def test_subsynchronous_frequency_is_preserved():
    rate_hz, shaft_hz = 51_200, 25.0
    t = np.arange(4 * rate_hz) / rate_hz
    signal = np.sin(2 * np.pi * 0.45 * shaft_hz * t) + np.sin(2 * np.pi * shaft_hz * t) + 3.3
    slow = resample(Recording(signal, rate_hz), 2048)
    frequency_hz, power = periodogram(slow.signal[0], 2048, window="hann")
    peaks = frequency_hz[find_peaks(power, height=0.1 * power.max())[0]]
    np.testing.assert_allclose(peaks, [11.25, 25.0], atol=0.01)
    np.testing.assert_allclose(slow.signal.mean(), 3.3, atol=1e-3)


def test_offset_has_no_edge_effects():
    flat = Recording(np.full((2, 4800), [[0.89], [-40.0]]), 48_000)
    for filtered in (resample(flat, 12_000), band_limit(flat, 5000)):
        np.testing.assert_allclose(
            filtered.signal, np.broadcast_to([[0.89], [-40.0]], filtered.signal.shape), rtol=1e-5
        )


def test_start_sample_is_scaled_to_the_new_rate():
    original = tone(100, 48_000, source="a.mat", label="wear", rpm=1797, specimen="B1")
    cut = resample(original.cut(12_000, 36_000), 12_000)
    assert (cut.start_sample, cut.n_samples, cut.duration_s) == (3000, 6000, 0.5)
    assert (cut.source, cut.label, cut.rpm, cut.specimen, cut.channels) == ("a.mat", "wear", 1797, "B1", ("ch0",))
    np.testing.assert_allclose(cut.signal[0, 200:-200], resample(original, 12_000).signal[0, 3200:8800], atol=1e-4)


def test_channels_are_resampled_independently():
    rng = np.random.default_rng(0)
    both = Recording(rng.normal(size=(2, 5000)), 20_000)
    for index, name in enumerate(both.channels):
        one = resample(both.select_channels([name]), 8000)
        np.testing.assert_array_equal(resample(both, 8000).signal[index], one.signal[0])


def test_same_rate_returns_the_same_signal():
    recording = tone(100, 12_000)
    assert resample(recording, 12_000).signal is recording.signal
    assert resample(recording, 12_000.5).signal is recording.signal
    assert resample(recording, 12_000.5).sampling_rate_hz == 12_000.5


def test_accepts_upsampling_within_clock_tolerance():
    filtered = resample(tone(1000, 11_990), 12_000)
    assert filtered.sampling_rate_hz == 12_000
    assert abs(20 * np.log10(amplitude(filtered, 1000))) < 0.01


def test_rejects_upsampling():
    with pytest.raises(
        ValueError, match=r"slow\.mat: sampled at 12000 Hz, cannot be upsampled to 48000 Hz.*at most 12000 Hz"
    ):
        resample(tone(100, 12_000, source="slow.mat"), 48_000)
    with pytest.raises(ValueError, match=r"slow\.mat: sampled at 12000 Hz"):
        to_common_rate([tone(100, 48_000), tone(100, 12_000, source="slow.mat")], 20_000)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), float("inf")])
def test_rejects_bad_rate(rate_hz):
    with pytest.raises(ValueError, match=f"sampling_rate_hz is {rate_hz}, expected"):
        resample(tone(100, 12_000), rate_hz)


def test_rejects_bad_limit():
    with pytest.raises(ValueError, match=r"limit_hz is 0\.0, expected"):
        band_limit(tone(100, 12_000), 0.0)


@pytest.mark.parametrize("limit_hz", [500.0, 2000.0, 4687.5])
def test_band_limit(limit_hz):
    filtered = band_limit(tone(limit_hz, 12_000), limit_hz)
    assert abs(20 * np.log10(amplitude(filtered, limit_hz))) < 0.01
    for frequency_hz in np.linspace(1.1 * limit_hz, 5900, 7):
        assert 20 * np.log10(np.sqrt(2) * middle(band_limit(tone(frequency_hz, 12_000), limit_hz)).std()) < -78


def test_band_limit_without_room_for_the_roll_off():
    recording = tone(100, 12_000)
    assert band_limit(recording, 5500) is recording


def test_common_rate_is_the_lowest_by_default():
    recordings = [tone(50, rate_hz) for rate_hz in (48_000, 12_000, 25_600)]
    common = to_common_rate(recordings)
    assert [r.sampling_rate_hz for r in common] == [12_000] * 3
    assert [r.n_samples for r in common] == [12_000] * 3
    np.testing.assert_allclose(common[0].signal[0, 300:-300], common[1].signal[0, 300:-300], atol=1e-3)
    assert to_common_rate([]) == []


def test_equal_rates_are_not_resampled():
    recordings = [tone(5900, 12_000), tone(5900, 12_000)]
    assert all(r.signal is o.signal for r, o in zip(to_common_rate(recordings), recordings, strict=True))
    lower = to_common_rate(recordings, 6000)
    assert [r.n_samples for r in lower] == [6000, 6000]


def top_band_share(recording: Recording, above_hz: float) -> float:
    """Return the share of the power above a frequency."""
    frequency_hz, power = periodogram(recording.signal[0], recording.sampling_rate_hz, window="hann")
    return power[frequency_hz > above_hz].sum() / power.sum()


def test_removes_the_roll_off_of_the_recorder():
    """One machine and two recorders: one at 48 kHz, one at 12 kHz after an analog filter at 4.8 kHz."""
    rng = np.random.default_rng(0)
    fast = Recording(rng.normal(size=480_000), 48_000)
    slow = resample(band_limit(Recording(rng.normal(size=480_000), 48_000), 4800), 12_000)
    decimated = resample(fast, 12_000)
    assert top_band_share(decimated, 5300) > 1000 * top_band_share(slow, 5300)  # the leak
    shares = [top_band_share(r, 5300) for r in to_common_rate([fast, slow])]
    assert max(shares) < 1e-7
    frequency_hz, _ = periodogram(slow.signal[0], 12_000, window="hann")
    spectra = [periodogram(r.signal[0], 12_000, window="hann")[1] for r in to_common_rate([fast, slow])]
    for band_hz in ((0, 1500), (1500, 3000), (3000, 4600), (4600, 4800)):
        inside = (frequency_hz > band_hz[0]) & (frequency_hz < band_hz[1])
        levels = [power[inside].sum() / power.sum() for power in spectra]
        assert abs(10 * np.log10(levels[0] / levels[1])) < 0.3


@pytest.mark.data
def test_real_normal_record_has_the_band_of_the_others(real_data):
    """Only 97.mat is sampled at 48 kHz; after decimation its top band identifies the class `normal`."""
    from scipy.io import loadmat

    def read(number: int, key: str, rate_hz: float) -> Recording:
        signal = loadmat(real_data / "cwru_12k_de" / f"{number}.mat")[key][:, 0]
        return Recording(signal, rate_hz, source=f"{number}.mat")

    normal = read(97, "X097_DE_time", 48_000)
    faults = [read(number, f"X{number}_DE_time", 12_000) for number in (105, 130, 222)]
    assert top_band_share(resample(normal, 12_000), 5500) > 2 * max(top_band_share(r, 5500) for r in faults)
    common = to_common_rate([normal, *faults])
    assert max(top_band_share(r, 5200) for r in common) < 1e-7
