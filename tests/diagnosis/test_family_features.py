"""Features of the families of lines, for models trained on the spectral diagnosis."""

import numpy as np
import pytest
from scipy.signal import resample

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.diagnosis.family_features import FAMILY_FEATURES, PARTS, family_features, feature_rows, merge_families
from whirl.diagnosis.results import FamilyEvidence
from whirl.diagnosis.spectral import SpectralDiagnoser


def family(name: str = "BPFO", part: str = "outer_race", **values) -> FamilyEvidence:
    default = {
        "significance_db": 15.0,
        "depth_db": -10.0,
        "harmonics_db": (20.0, 15.0, 10.0),
        "sidebands_db": 5.0,
        "false_alarm_probability": 1e-3,
    }
    return FamilyEvidence(name, part, 3.58, **(default | values))


def features_of(recording: Recording) -> np.ndarray:
    features, _ = feature_rows(SpectralDiagnoser().diagnose([recording]))
    return features[0]


def test_features_of_one_family() -> None:
    features, judged = family_features({"BPFO": family()})
    assert judged.tolist() == [False, True, False]
    found = dict(zip(FAMILY_FEATURES, features[1], strict=True))
    assert found == pytest.approx(
        {
            "significance": 1.5,
            "depth": 3.0,
            "first_line": 2.0,
            "second_line": 1.5,
            "third_line": 1.0,
            "sidebands": 0.5,
            "chance": 1.0,
            "lead": 1.5,
            "depth_lead": 3.0,
        }
    )
    assert (features[[0, 2]] == 0).all()


def test_lead_over_the_strongest_other_family() -> None:
    strong, weak = family(), family("BPFI", "inner_race", significance_db=6.0, depth_db=-22.0)
    features, judged = family_features({"BPFO": strong, "BPFI": weak})
    assert judged.tolist() == [True, True, False]
    assert features[:2, -2] == pytest.approx([-0.9, 0.9])
    assert features[:2, -1] == pytest.approx([-1.2, 1.2])


def test_hidden_harmonics_have_the_mean_level() -> None:
    features, _ = family_features({"BPFO": family(harmonics_db=(20.0, None, 10.0))})
    assert features[1, 2:5] == pytest.approx([2.0, 1.5, 1.0])


def test_missing_quantities_and_extremes_stay_finite() -> None:
    extreme = family(depth_db=-300.0, false_alarm_probability=0.0, sidebands_db=None, harmonics_db=(99.0, None, None))
    features, _ = family_features({"BPFO": extreme, "2BSF": family("2BSF", "ball", false_alarm_probability=None)})
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 4


def test_most_significant_channel_counts() -> None:
    merged = merge_families(
        [
            {"BPFO": family(significance_db=4.0)},
            {"BPFO": family(significance_db=9.0)},
            {"BPFO": family(significance_db=None)},
        ]
    )
    assert merged["BPFO"].significance_db == 9.0


def test_features_do_not_depend_on_gain_offset_and_sampling_rate() -> None:
    (recording,) = simulate(1, 1, ["outer_race"], seed=3, sampling_rate_hz=12_000, n_samples=120_000)
    other = Recording(
        100 * recording.signal + 5, 12_000, rpm=recording.rpm, bearing=recording.bearing, label=recording.label
    )
    np.testing.assert_allclose(features_of(recording), features_of(other), atol=0.02)
    upsampled = Recording(resample(recording.signal[0], 240_000), 24_000, rpm=recording.rpm, bearing=recording.bearing)
    np.testing.assert_allclose(features_of(recording)[:, :2], features_of(upsampled)[:, :2], atol=0.15)


def test_undiagnosed_recordings_have_no_evaluated_family() -> None:
    silent = Recording(np.zeros(50_000), 10_000, rpm=1500, bearing="6205")
    unknown = Recording(np.random.default_rng(0).normal(size=50_000), 10_000, rpm=1500)
    features, judged = feature_rows(SpectralDiagnoser().diagnose([silent, unknown]))
    assert features.shape == (2, len(PARTS), len(FAMILY_FEATURES))
    assert not judged.any()
    assert (features == 0).all()
    assert feature_rows([])[0].shape == (0, len(PARTS), len(FAMILY_FEATURES))
