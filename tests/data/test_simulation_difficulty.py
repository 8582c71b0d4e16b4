"""The level of a recording does not reveal its class, the spectrum does."""

import itertools
import math

import numpy as np
import pytest

from tests.data.simulated_spectra import envelope_spectrum, order_spectrum
from whirl.data.recording import Recording
from whirl.data.simulation import simulate


def _level_and_shape(recording: Recording) -> np.ndarray:
    """Return the logarithms of RMS, crest factor and kurtosis, `[3]`."""
    signal = recording.signal[0].astype(np.float64)
    signal -= signal.mean()
    rms = np.sqrt(np.mean(signal**2))
    return np.log([rms, np.abs(signal).max() / rms, np.mean(signal**4) / rms**4])


def _spectral_features(recording: Recording) -> np.ndarray:
    """Return lines on orders, band levels and envelope features, independent of the gain."""
    assert recording.rpm is not None
    orders, power = order_spectrum(recording)
    fraction = orders / orders[-1]
    power = power / power[fraction > 0.1].mean()

    def line(spectrum: np.ndarray, low: float, high: float) -> float:
        first, last = np.searchsorted(orders, (low, high))
        return math.log(spectrum[first : max(last, first + 1)].max() + 1e-12)

    lines = [line(power, 0.98 * n - 0.01, 1.02 * n + 0.01) for n in range(1, 10)]
    lines += [line(power, 0.98 * q, 1.02 * q) for q in (1 / 3, 1 / 2, 4 / 3, 3 / 2, 7 / 3, 5 / 2)]
    lines += [line(power, 0.41, 0.485), math.log(np.median(power[(orders > 0.2) & (orders < 8)]))]
    edges = np.linspace(0.06, 0.96, 16)
    bands = [math.log(power[(fraction >= a) & (fraction < b)].mean()) for a, b in itertools.pairwise(edges)]
    groups = [max(bands[2:5]) - min(bands), max(bands[6:9]) - min(bands), max(bands[10:14]) - min(bands)]
    envelopes = []
    for low, high in ((0.15, 0.32), (0.40, 0.60), (0.64, 0.92)):
        _, envelope = envelope_spectrum(recording, low, high)
        slow = line(envelope, 0.4 * 60 / recording.rpm, 2.2 * 60 / recording.rpm)
        floor = math.log(np.median(envelope[(orders > 1.2) & (orders < 4)]))
        envelopes += [line(envelope, 0.98, 1.02) - floor, slow - floor, floor]
    harmonics = [lines[n] - lines[0] for n in (1, 2)] + [lines[1] - lines[2]]
    return np.array([*lines, *bands, *groups, *envelopes, *harmonics, math.log(recording.rpm)])


def _unseen_machine_predictions(features: np.ndarray, recordings: list[Recording]) -> np.ndarray:
    """Predict labels of machines held out from the training of logistic regression, four folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, C=0.1))
    labels = [r.label for r in recordings]
    machines = [r.specimen for r in recordings]
    return np.asarray(cross_val_predict(model, features, labels, groups=machines, cv=GroupKFold(4)))


def _accuracy(features: np.ndarray, recordings: list[Recording]) -> float:
    return float(np.mean(_unseen_machine_predictions(features, recordings) == [r.label for r in recordings]))


@pytest.fixture(scope="module")
def one_second() -> list[Recording]:
    return simulate(16, 1, n_samples=20_480, seed=11)


def test_level_crest_factor_and_kurtosis_do_not_reveal_the_class(one_second: list[Recording]) -> None:
    features = np.array([_level_and_shape(r) for r in one_second])
    assert _accuracy(features[:, :1], one_second) < 0.2
    assert _accuracy(features, one_second) < 0.45


def test_spectrum_reveals_the_class(one_second: list[Recording]) -> None:
    assert _accuracy(np.array([_spectral_features(r) for r in one_second]), one_second) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_default_recordings_are_classified_except_the_mildest_faults(seed: int) -> None:
    recordings = simulate(seed=seed)
    predicted = _unseen_machine_predictions(np.array([_spectral_features(r) for r in recordings]), recordings)
    right = predicted == [r.label for r in recordings]
    severity = np.array([r.metadata["severity"] for r in recordings])
    assert right.mean() > 0.93
    assert right[severity > 0.5].mean() > 0.96
    mild = (severity > 0) & (severity < 0.35)
    assert right[mild].mean() < 0.95
    missed = np.mean(predicted[mild] == "healthy")
    assert 0.01 < missed < 0.3
