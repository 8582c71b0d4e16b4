"""Segments of whole turns."""

import pytest
import torch

from whirl.dsp.turn_segments import overlapping_segments, segment_length, taper_ends


@pytest.mark.parametrize("rpm", [300, 1748, 1797, 1800, 12_345])
@pytest.mark.parametrize("sampling_rate_hz", [8000, 12_000, 97_656])
def test_a_segment_holds_forty_turns(rpm, sampling_rate_hz):
    length = segment_length(10**7, sampling_rate_hz, rpm)
    assert length * rpm / 60 / sampling_rate_hz == pytest.approx(40, rel=1e-3)


def test_a_slow_shaft_takes_longer_segments():
    assert segment_length(10**6, 12_000, 600) == pytest.approx(3 * segment_length(10**6, 12_000, 1800), rel=2e-3)


def test_a_short_recording_is_one_segment_of_whole_turns():
    length = segment_length(10_100, 12_000, 1800)  # 25.25 turns
    assert length == pytest.approx(25 * 400, rel=1e-3)
    assert segment_length(300, 12_000, 1800) == 300  # less than a turn


def test_lengths_have_small_prime_factors():
    length = segment_length(10**6, 25_600, 1797)  # 34190.3 samples are 40 turns
    for factor in range(2, 38):
        while length % factor == 0:
            length //= factor
    assert length == 1


@pytest.mark.parametrize(("n_samples", "length"), [(100, 100), (101, 100), (149, 100), (150, 100), (1234, 100)])
def test_segments_overlap_by_half_and_cover_the_signal(n_samples, length):
    segments = overlapping_segments(torch.arange(n_samples), length)
    starts = segments[:, 0]
    assert (starts.diff() <= length // 2).all()
    assert starts[0] == 0
    assert n_samples - segments[-1, -1] <= len(segments)


def test_segments_keep_leading_axes():
    assert overlapping_segments(torch.zeros(2, 3, 1000), 400).shape == (2, 3, 4, 400)


def test_rejects_a_length_beyond_the_signal():
    with pytest.raises(ValueError, match="length is 9, expected at most the signal's 8 samples"):
        overlapping_segments(torch.zeros(8), 9)


@pytest.mark.parametrize("rpm", [0, -1, float("nan"), float("inf")])
def test_rejects_an_impossible_speed(rpm):
    with pytest.raises(ValueError, match="rpm is"):
        segment_length(1000, 12_000, rpm)


def test_a_slow_drift_does_not_leak_into_high_frequencies():
    ramp = torch.linspace(-1, 1, 4000, dtype=torch.float64)
    plain, tapered = (torch.fft.rfft(each).abs()[1000:].max() for each in (ramp, taper_ends(ramp)))
    assert tapered < 1e-3 * plain


def test_no_taper_changes_nothing():
    segments = torch.ones(2, 50)
    assert torch.equal(taper_ends(segments, 0), segments)
