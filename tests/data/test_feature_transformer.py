"""SignalFeatures: scikit-learn's estimator checks, pipelines, and real bearings."""

import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from whirl.data.arrays import window_arrays
from whirl.data.dataset import list_dataset
from whirl.data.feature_transformer import SignalFeatures
from whirl.data.features import feature_table, signal_features
from whirl.data.windows import WindowDataset

RATE_HZ = 8192.0
RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2, 256))
Y = np.arange(60) % 2
X[Y == 1, :, 32::64] += 5
SPECIMENS = np.arange(60) // 6
CLASSES = ("ball", "inner_race", "outer_race")
RPM = RNG.uniform(1800, 3000, 60)


class ShortWindows(SignalFeatures):
    """Repeats the samples of windows, since scikit-learn's checks use 2 to 10 columns, too few for a spectrum."""

    def _windows(self, values):
        return super()._windows(np.tile(values, 16) if values.ndim == 2 else values)


@parametrize_with_checks([ShortWindows(RATE_HZ)])
def test_passes_sklearn_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rpm", [None, RPM])
def test_rows_contain_the_features_of_all_channels(dtype, rpm):
    transformer = SignalFeatures(RATE_HZ, batch_size=7)
    rows = transformer.fit_transform(X.astype(dtype), rpm=rpm)
    speeds = None if rpm is None else torch.tensor(rpm)
    expected = signal_features(torch.tensor(X.astype(dtype)), RATE_HZ, speeds).flatten(1)
    assert rows.dtype == dtype
    np.testing.assert_allclose(rows, expected, rtol=1e-4 if dtype == np.float32 else 1e-10, atol=1e-5)


def test_names_and_units_of_columns():
    transformer = SignalFeatures(RATE_HZ, ["DE", "FE"], unit="g").fit(X)
    table = feature_table(RATE_HZ)
    assert transformer.get_feature_names_out().tolist() == [f"{c}_{f.name}" for c in ("DE", "FE") for f in table]
    assert transformer.feature_units_.tolist() == [f.unit.replace("signal", "g") for _ in range(2) for f in table]
    frame = transformer.set_output(transform="pandas").transform(X)
    assert frame.columns.tolist() == transformer.get_feature_names_out().tolist()
    assert frame["FE_rms"].iloc[3] == pytest.approx(X[3, 1].std())


def test_single_channel_needs_no_channel_axis():
    without_axis, with_axis = SignalFeatures(RATE_HZ).fit(X[:, 0]), SignalFeatures(RATE_HZ).fit(X[:, :1])
    np.testing.assert_array_equal(without_axis.transform(X[:, 0]), with_axis.transform(X[:, :1]))
    assert without_axis.get_feature_names_out()[0] == "ch0_rms"


def test_pickle_and_clone():
    fitted = SignalFeatures(RATE_HZ, channels=("a", "b")).fit(X, rpm=RPM)
    restored = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(restored.transform(X, rpm=RPM), fitted.transform(X, rpm=RPM))
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "feature_units_")


def test_pipeline_with_grouped_cross_validation():
    model = make_pipeline(SignalFeatures(RATE_HZ), RandomForestClassifier(20, random_state=0))
    scores = cross_val_score(model, X, Y, groups=SPECIMENS, cv=GroupKFold(5))
    assert scores.min() > 0.9  # impacts vs. noise


def test_speeds_are_routed_through_a_pipeline():
    with sklearn.config_context(enable_metadata_routing=True):
        features = SignalFeatures(RATE_HZ).set_fit_request(rpm=True).set_transform_request(rpm=True)
        model = make_pipeline(features, RandomForestClassifier(5, random_state=0)).fit(X, Y, rpm=RPM)
        assert model[-1].n_features_in_ == 2 * len(feature_table(RATE_HZ, with_speed=True))
        assert model.predict(X[:3], rpm=RPM[:3]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "windows", "rpm", "message"),
    [
        ({"sampling_rate_hz": 0}, X, None, "sampling_rate_hz is 0, expected a finite number > 0"),
        ({"sampling_rate_hz": -8192.0}, X, None, "sampling_rate_hz is -8192"),
        ({"batch_size": 0}, X, None, "batch_size is 0"),
        ({"channels": ["a"]}, X, None, r"channels are \['a'\], expected 2 unique names"),
        ({"channels": ["a", "a"]}, X, None, "expected 2 unique names"),
        ({"bearing": "ER16K"}, X, RPM, "did you mean 'ER-16K'"),
        ({"bearing": "6205"}, X, None, "rpm is None, expected the speed of every window"),
        ({}, X[..., :15], None, "windows of 15 samples, expected at least 16"),
        ({}, X[None], None, r"X has shape \(1, 60, 2, 256\), expected"),
        ({}, np.where(X > 4, np.nan, X), None, "X contains NaN"),
        ({}, X, RPM[:5], r"rpm has shape \(5,\)"),
        ({}, X, np.where(RPM > 2900, np.nan, RPM), "rpm of window .* is nan"),
    ],
)
def test_fit_rejects_invalid_input(arguments, windows, rpm, message):
    with pytest.raises(ValueError, match=message):
        SignalFeatures(**({"sampling_rate_hz": RATE_HZ} | arguments)).fit(windows, rpm=rpm)


@pytest.mark.parametrize(
    ("windows", "rpm", "message"),
    [
        (X[..., :100], RPM, r"2 channel\(s\) of 100 samples, expected 2 channel\(s\) of 256"),
        (X[:, :1], RPM, "X has 1 features, but SignalFeatures is expecting 2"),
        (X, None, "rpm is required, since it was passed to fit"),
    ],
)
def test_transform_rejects_input_that_does_not_match_fit(windows, rpm, message):
    transformer = SignalFeatures(RATE_HZ).fit(X, rpm=RPM)
    with pytest.raises(ValueError, match=message):
        transformer.transform(windows, rpm=rpm)


@pytest.fixture(scope="module")
def bearings(real_data):
    """Return windows of 1 s of 48 recordings of 9 bearings with faults in 3 places and of 3 sizes."""
    entries = list_dataset(real_data / "cwru_12k_de", CLASSES)
    recordings = [entry.read(None).select_channels(["DE"]) for entry in entries]
    recordings = [
        recording for recording in recordings if not str(recording.specimen).endswith("028")
    ]  # another manufacturer
    return window_arrays(WindowDataset(recordings, CLASSES, 12_000, standardize=False), recordings)


@pytest.mark.data
def test_forest_classifies_faults_of_unseen_real_bearings(bearings):
    """Folds are fault sizes: test bearings are unseen, and each fold contains every class."""
    features = SignalFeatures(12_000, ["DE"], "g", bearing="6205").fit_transform(bearings.X, rpm=bearings.rpm)
    forest = RandomForestClassifier(25, min_samples_leaf=5, random_state=0)
    sizes = np.array([name[-3:] for name in bearings.groups])
    unseen = cross_val_score(forest, features, bearings.y, groups=sizes, cv=GroupKFold(3), scoring="balanced_accuracy")
    assert unseen.mean() > 0.6  # chance is a third
    seen = cross_val_score(forest, features, bearings.y, cv=StratifiedKFold(3, shuffle=True, random_state=0))
    assert seen.min() > 0.97  # with the same bearings in training and test, the model recognizes the bearing
