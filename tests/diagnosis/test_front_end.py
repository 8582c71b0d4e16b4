"""Envelope spectra over orders, computed from signals."""

import itertools

import numpy as np
import pytest
import torch

from whirl.data.recording import Recording
from whirl.diagnosis.descriptors import family_evidence
from whirl.diagnosis.front_end import analysis_bands, envelope_orders
from whirl.physics.fault_families import fault_families
from whirl.physics.rolling_bearing import BEARINGS, BearingGeometry, fault_orders

FAMILIES = fault_families(fault_orders(BEARINGS["6205"]))


def evidence_of(recording, families=FAMILIES, max_order=40.0):
    signal = torch.tensor(recording.signal[0])
    bands = envelope_orders(signal, recording.sampling_rate_hz, recording.rpm, max_order)
    return family_evidence([(bands, families)])[0]


@pytest.mark.parametrize("sampling_rate_hz", [2560, 12_000, 16_000, 20_480, 25_600, 48_828, 97_656, 200_000])
@pytest.mark.parametrize("rpm", [60, 1800, 24_000])
def test_bands_are_adjacent_and_reach_the_top(sampling_rate_hz, rpm):
    bands = analysis_bands(sampling_rate_hz, rpm)
    assert all(below[1] == above[0] for below, above in itertools.pairwise(bands))
    assert bands[-1][1] == pytest.approx(0.48 * sampling_rate_hz)
    assert all(high >= 1.4 * low for low, high in bands)


def test_the_lowest_band_is_the_same_at_any_high_sampling_rate():
    assert len({analysis_bands(rate, 1800)[0] for rate in (12_000, 24_000, 48_828, 97_656)}) == 1


def test_the_lowest_band_of_a_fast_shaft_is_wider():
    assert analysis_bands(97_656, 30_000)[0][1] == pytest.approx(0.96 * 30_000)


@pytest.mark.parametrize(("part", "name"), [("inner_race", "BPFI"), ("outer_race", "BPFO"), ("ball", "2BSF")])
def test_a_resonance_is_as_significant_at_any_sampling_rate(part, name, simulate_fault):
    """One signal with a resonance of 2.7 kHz, recorded at 97.7, 48.8, 24.4 and 12.2 kHz: the same within 1 dB."""
    recording = simulate_fault(part, sampling_rate_hz=97_656, ratio_db=3, turns=100)
    spectrum = np.fft.rfft(recording.signal[0].astype(float)[: recording.n_samples // 8 * 8])
    levels = []
    for divisor in (1, 2, 4, 8):
        n = (len(spectrum) - 1) * 2 // divisor
        signal = np.fft.irfft(spectrum[: n // 2 + 1], n) / divisor
        slower = Recording(signal, 97_656 / divisor, rpm=recording.rpm)
        levels.append(evidence_of(slower)[name].significance_db)
    assert min(levels) > 10
    assert max(levels) - min(levels) < 0.5


def test_a_signal_sampled_faster_gives_the_same_result(simulate_fault):
    """The additional samples are from a band-limited interpolation."""
    recording = simulate_fault("outer_race")
    n = recording.n_samples
    faster = np.fft.irfft(np.fft.rfft(recording.signal[0].astype(float)), 4 * n) * 4
    slow = envelope_orders(torch.tensor(recording.signal[0]), 12_000, recording.rpm)
    fast = envelope_orders(torch.tensor(faster, dtype=torch.float32), 48_000, recording.rpm)
    assert len(slow) == len(fast) == 1  # the bands above are empty
    found, again = (family_evidence([(bands, FAMILIES)])[0]["BPFO"] for bands in (slow, fast))
    assert again.significance_db == pytest.approx(found.significance_db, abs=0.3)
    assert again.depth_db == pytest.approx(found.depth_db, abs=0.3)


def noise_between(low_hz, high_hz, sampling_rate_hz=48_000, n_samples=240_000):
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=n_samples))
    frequency_hz = np.fft.rfftfreq(n_samples, 1 / sampling_rate_hz)
    spectrum *= (frequency_hz > low_hz) & (frequency_hz < high_hz)
    return torch.tensor(np.fft.irfft(spectrum, n_samples), dtype=torch.float32)


@pytest.mark.parametrize(("low_hz", "high_hz"), [(900, 2800), (1300, 2000), (300, 700)])
def test_bands_without_noise_are_empty(low_hz, high_hz):
    """What a filter left is not whitened up to the level of noise, even if noise fills little of the lowest band."""
    (found,) = envelope_orders(noise_between(low_hz, high_hz), 48_000, rpm=1600)
    assert found.band_hz == (240, 5760)


def test_modulations_are_no_faster_than_the_content_of_a_band_allows():
    (found,) = envelope_orders(noise_between(1000, 1600), 48_000, rpm=1600)
    assert 0.8 * 600 < found.max_order * 1600 / 60 < 600  # Hz; 0.8 of the width with the skirts of the taper


def test_a_resonance_above_the_lowest_band_is_found(simulate_fault):
    found = evidence_of(simulate_fault("outer_race", sampling_rate_hz=51_200, resonance_hz=9000, ratio_db=6))
    assert found["BPFO"].significance_db > 10
    assert found["BPFO"].band_hz[0] < 9000 < found["BPFO"].band_hz[1]


@pytest.mark.parametrize("rpm", [300, 1797, 6000])
def test_speed_does_not_matter(rpm, simulate_fault):
    """Lines are at the same orders at every speed."""
    found = evidence_of(simulate_fault("outer_race", rpm=rpm, sampling_rate_hz=24_000, ratio_db=6))
    assert found["BPFO"].significance_db > 10
    assert found["BPFO"].slip == pytest.approx(-0.003, abs=0.003)
    assert max(found["BPFI"].significance_db, found["2BSF"].significance_db) < found["BPFO"].significance_db - 4


def test_gain_offset_and_polarity_change_nothing(simulate_fault):
    recording = simulate_fault("inner_race")
    signal = torch.tensor(recording.signal[0])
    plain = envelope_orders(signal, 12_000, 1797)[0].power
    for changed in (1000 * signal, signal - 50, -signal, 1e-6 * signal):
        torch.testing.assert_close(envelope_orders(changed, 12_000, 1797)[0].power, plain, rtol=2e-3, atol=1e-7)


def test_large_bearings_have_orders_beyond_forty(simulate_fault):
    geometry = BearingGeometry(36, 18, 400)
    families = fault_families(fault_orders(geometry))
    assert 3 * families[0].order > 50
    recording = simulate_fault("inner_race", bearing=geometry, rpm=240, sampling_rate_hz=12_000, ratio_db=6, turns=120)
    found = evidence_of(recording, families, max_order=60)
    assert found["BPFI"].significance_db > 6
    assert None not in found["BPFI"].harmonics_db


def test_harmonics_beyond_the_band_are_left_out_of_the_mean(simulate_fault):
    """At a low sampling rate the envelope does not contain all lines."""
    recording = simulate_fault("outer_race", sampling_rate_hz=700, resonance_hz=200, rpm=1797, ratio_db=6)
    found = evidence_of(recording)["BPFO"]
    assert found.is_judged
    assert found.harmonics_db[2] is None
    assert "beyond the band" in found.reason


def test_a_chunk_of_many_segments_equals_one_of_few(simulate_fault, monkeypatch):
    signal = torch.tensor(simulate_fault("outer_race").signal[0])
    at_once = envelope_orders(signal, 12_000, 1797)[0]
    monkeypatch.setattr("whirl.diagnosis.front_end._CHUNK_SAMPLES", 1)
    one_by_one = envelope_orders(signal, 12_000, 1797)[0]
    torch.testing.assert_close(one_by_one.power, at_once.power)
    assert one_by_one.n_segments == at_once.n_segments
    assert one_by_one.impulsiveness == pytest.approx(at_once.impulsiveness)


def test_noise_has_impulsiveness_1():
    noise = torch.randn(120_000, generator=torch.Generator().manual_seed(0))
    assert envelope_orders(noise, 12_000, 1800)[0].impulsiveness == pytest.approx(1, abs=0.1)


def test_gradients_flow_to_the_signal():
    signal = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    envelope_orders(signal, 12_000, 3600)[0].power[100:200].sum().backward()
    assert signal.grad.isfinite().all()
    assert signal.grad.abs().sum() > 0


def test_a_batch_of_recordings_equals_single_ones(simulate_fault):
    """The batch has recordings of other lengths, speeds, sampling rates and bearings."""
    items = []
    settings = (
        (12_000, 1797, 100, BEARINGS["6205"], 40),
        (25_600, 900, 35, BEARINGS["6203"], 40),
        (48_828, 3000, 60, BearingGeometry(13, 7.5, 38.5), 40),
        (25_600, 900, 50, BearingGeometry(36, 5.0, 80.0), 60),
    )
    for rate, rpm, turns, bearing, max_order in settings:
        recording = simulate_fault("outer_race", sampling_rate_hz=rate, rpm=rpm, turns=turns)
        spectra = envelope_orders(torch.tensor(recording.signal[0]), rate, rpm, max_order)
        items.append((spectra, fault_families(fault_orders(bearing))))
    for together, item in zip(family_evidence(items), items, strict=True):
        for name, alone in family_evidence([item])[0].items():
            assert together[name].significance_db == pytest.approx(alone.significance_db, abs=1e-4, nan_ok=True)
            assert together[name].depth_db == pytest.approx(alone.depth_db, abs=1e-3)
            assert together[name].false_alarm_probability == pytest.approx(alone.false_alarm_probability, abs=1e-5)
