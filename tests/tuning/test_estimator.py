"""Tests of the scikit-learn classifier based on Trainer."""

import pickle
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from whirl.data.loaders import BatchSampler, make_loader
from whirl.data.windows import standardize
from whirl.engine.callbacks import Callback
from whirl.engine.loss_guard import NonFiniteLossError
from whirl.models import registry
from whirl.models.registry import create_model, list_models
from whirl.training.trainer import Trainer
from whirl.tuning.estimator import SignalClassifier

STFT = {"kind": "stft", "sampling_rate_hz": 12_000}


def perceptron(num_classes: int, in_channels: int = 1) -> nn.Module:
    """A network for windows of 1 to 30 samples as in scikit-learn's checks, too short for convolutional networks."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, num_classes))


@pytest.fixture(autouse=True)
def perceptron_in_registry(monkeypatch):
    monkeypatch.setitem(registry.MODELS._entries, "perceptron", perceptron)
    torch.set_num_threads(1)  # more threads are slower on such small batches


def tones(n: int = 36, n_samples: int = 256, n_channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return windows `[n, C, T]`, each a noisy tone of one of three frequencies, and their labels."""
    y = np.array(["fast", "middle", "slow"])[np.arange(n) % 3]
    tone = np.sin(np.outer(np.array([0.8, 0.4, 0.1])[np.arange(n) % 3], np.arange(n_samples)))
    noise = np.random.default_rng(0).normal(0, 0.5, size=(n, n_channels, n_samples))
    return (tone[:, None] + noise).astype(np.float32), y


def small(model: str = "cnn1d", **settings) -> SignalClassifier:
    return SignalClassifier(model, **{"epochs": 2, "batch_size": 8, "device": "cpu", **settings})


@parametrize_with_checks(
    [
        # The checks use tabular rows, not waveforms: their mean and spread separate the classes.
        SignalClassifier("perceptron", epochs=8, batch_size=8, lr=0.03, standardize=False, device="cpu")
    ],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "repeated windows are in other batches"
    },
)
def test_passes_sklearn_check_estimator(estimator, check):
    check(estimator)


def plain_training(X, y, *, epochs, batch_size, lr, seed):
    """Train like the classifier should, in plain PyTorch."""
    signals, targets = standardize(torch.from_numpy(X)), torch.from_numpy(np.unique(y, return_inverse=True)[1])
    torch.manual_seed(seed)
    model = create_model("cnn1d", 3, X.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    sampler = BatchSampler(len(X), batch_size, shuffle=True, seed=seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * len(sampler))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for chosen in sampler:
            optimizer.zero_grad()
            F.cross_entropy(model(signals[chosen]), targets[chosen], label_smoothing=0.1).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval(), signals


def test_weights_match_plain_pytorch_loop():
    X, y = tones(28, n_channels=2)
    fitted = small(epochs=3, lr=2e-3, weight_decay=0.02, label_smoothing=0.1, random_state=7).fit(X, y)
    model, signals = plain_training(X, y, epochs=3, batch_size=8, lr=2e-3, seed=7)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(fitted.model_.state_dict()[name], weight, rtol=1e-4, atol=1e-4, msg=name)
    with torch.no_grad():
        expected = model(signals).softmax(1).numpy()
    np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-4)
    assert (fitted.predict(X) == np.array(["fast", "middle", "slow"])[expected.argmax(1)]).all()


def test_matches_trainer_on_same_batches():
    X, y = tones(24)
    data = TensorDataset(standardize(torch.from_numpy(X)), torch.from_numpy(np.unique(y, return_inverse=True)[1]))
    torch.manual_seed(3)
    model = create_model("cnn1d", 3, width=0.5)
    loader = make_loader(data, 8, shuffle=True, seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    halve = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    trainer = Trainer(model, loader, None, optimizer, device="cpu", lr_scheduler=halve)
    trainer.fit(2)
    fitted = small(width=0.5, lr=0.1, optimizer="sgd", schedule="step", random_state=3).fit(X, y)
    assert fitted.history_["train_loss"] == trainer.state.history["train_loss"]
    assert fitted.history_["lr"] == trainer.state.history["lr"]
    assert all(torch.equal(a, b) for a, b in zip(fitted.model_.parameters(), model.parameters(), strict=True))


def test_learns_and_records_history():
    X, y = tones(60)
    fitted = small(epochs=12).fit(X[:36], y[:36], validation_data=(X[36:48], y[36:48]))
    assert fitted.score(X[48:], y[48:]) > 0.9
    assert len(fitted.history_["val_accuracy"]) == 12
    np.testing.assert_allclose(fitted.predict_proba(X).sum(1), 1)


def test_keeps_weights_of_lowest_validation_loss():
    X, y = tones(36)
    wrong = np.roll(y[24:], 1)  # learning the training labels increases this validation loss
    fitted = small(epochs=8).fit(X[:24], y[:24], validation_data=(X[24:], wrong))
    losses = fitted.history_["val_loss"]
    found = -np.log(fitted.predict_proba(X[24:])[np.arange(12), np.searchsorted(fitted.classes_, wrong)]).mean()
    assert losses[-1] > min(losses) + 0.1
    assert found == pytest.approx(min(losses), rel=1e-4)


def test_same_seed_gives_same_bits_and_preserves_rng_state():
    X, y = tones(24)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    first = small(random_state=5).fit(X, y)
    found = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    again = clone(first).fit(X, y)
    other = clone(first).set_params(random_state=6).fit(X, y)
    assert found == expected
    assert (first.predict_proba(X) == again.predict_proba(X)).all()
    assert (first.predict_proba(X) != other.predict_proba(X)).any()
    drawn = small(random_state=np.random.RandomState(2))
    assert (drawn.fit(X, y).predict_proba(X) != drawn.fit(X, y).predict_proba(X)).any()


class RecordLogs(Callback):
    def __init__(self, stop_after: int) -> None:
        self.logs: list[dict] = []
        self.stop_after = stop_after

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        self.trainer.state.should_stop = epoch + 1 == self.stop_after


def test_callbacks_receive_logs_and_can_stop():
    X, y = tones(24)
    recorder = RecordLogs(stop_after=3)
    fitted = small(epochs=9).fit(X[:12], y[:12], validation_data=(X[12:], y[12:]), callbacks=[recorder])
    assert [logs["val_accuracy"] for logs in recorder.logs] == fitted.history_["val_accuracy"]
    assert len(recorder.logs) == 3


def test_exception_in_callback_leaves_unfitted_classifier_and_rng_state():
    def prune(trainer, logs):
        raise InterruptedError("pruned")

    X, y = tones(12)
    classifier, state = small(), torch.get_rng_state()
    with pytest.raises(InterruptedError, match="pruned"):
        classifier.fit(X, y, callbacks=[prune])
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(NotFittedError):
        classifier.predict(X)


def test_failed_fit_discards_earlier_network():
    X, y = tones(12)
    classifier = small().fit(X, y)

    def fail(trainer, logs):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        classifier.fit(X, np.roll(y, 1), callbacks=[fail])
    with pytest.raises(NotFittedError):
        classifier.predict(X)


def test_interrupted_training_leaves_unfitted_classifier():
    def interrupt(trainer, logs):
        trainer.state.interrupted = True

    X, y = tones(12)
    classifier = small()
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X, y, callbacks=[interrupt])
    with pytest.raises(NotFittedError):
        classifier.predict(X)


def test_pickle_contains_network_but_no_training_state():
    X, y = tones(12)
    fitted = small().fit(X, y)
    packed = pickle.dumps(fitted)
    assert (pickle.loads(packed).predict_proba(X) == fitted.predict_proba(X)).all()
    assert not any(part in packed for part in (b"torch.optim", b"DataLoader", b"Trainer", b"whirl.engine"))


def test_channel_axis_is_optional():
    X, y = tones(12)
    flat = small().fit(X[:, 0], y)
    assert flat.n_features_in_ == 256
    assert flat.window_shape_ == (1, 256)
    assert (flat.predict_proba(X) == flat.predict_proba(X[:, 0])).all()
    assert (flat.predict_proba(X) == small().fit(X, y).predict_proba(X[:, 0].tolist())).all()


def test_standardize_removes_gain_and_offset():
    X, y = tones(12)
    changed = X * 4 + 8
    fitted, raw = small().fit(X, y), small(standardize=False).fit(X, y)
    np.testing.assert_allclose(fitted.predict_proba(changed), fitted.predict_proba(X), atol=1e-4)
    assert np.abs(raw.predict_proba(changed) - raw.predict_proba(X)).max() > 1e-3


def test_drops_last_batch_of_one_window():
    X, y = tones(17)
    assert np.isfinite(small(epochs=1).fit(X, y).history_["train_loss"]).all()
    assert small(epochs=1, batch_size=64).fit(X[:2], y[:2]).classes_.tolist() == ["fast", "middle"]


REQUIRED_SETTINGS = {
    "cnn2d": {"representation": STFT},
    "resnet18_2d": {"representation": STFT},
    "multi_tfr": {"model_params": {"sampling_rate_hz": 12_000, "kinds": ["stft", "cwt"]}},
    "hybrid_pinn": {"model_params": {"sampling_rate_hz": 12_000}},
    "resnet18_1d": {"width": 0.25},
}


@pytest.mark.parametrize("name", list_models())
def test_fits_every_network(name):
    X, y = tones(9, n_samples=1024)
    fitted = small(name, epochs=1, **REQUIRED_SETTINGS.get(name, {})).fit(X, np.unique(y, return_inverse=True)[1] * 10)
    assert set(fitted.predict(X)) <= {0, 10, 20}
    assert (pickle.loads(pickle.dumps(fitted)).predict_proba(X) == fitted.predict_proba(X)).all()


def test_works_in_search_cross_validation_and_pipeline():
    X, y = tones(36)
    groups = np.arange(36) // 6
    folds = GroupKFold(3)
    scores = {epochs: cross_val_score(small(epochs=epochs), X, y, groups=groups, cv=folds).mean() for epochs in (1, 8)}
    grid = GridSearchCV(small(), {"epochs": [1, 8]}, cv=folds).fit(X, y, groups=groups)
    assert dict(zip((1, 8), grid.cv_results_["mean_test_score"], strict=True)) == scores
    assert grid.best_params_ == {"epochs": 8}
    assert grid.best_estimator_.score(X, y) == 1
    drawn = RandomizedSearchCV(small(), {"lr": [1e-3, 1e-2]}, n_iter=2, cv=2, random_state=0, error_score="raise")
    assert drawn.fit(X, y).predict(X[:2]).tolist() <= ["slow"] * 2
    pipeline = make_pipeline(StandardScaler(), small(epochs=8)).fit(X[:, 0], y)
    assert clone(pipeline).set_params(signalclassifier__lr=0.01).fit(X[:, 0], y).score(X[:, 0], y) > 0.6


X, Y = tones(12)
WITH_NAN = np.where(np.arange(256) == 9, np.nan, X)


@pytest.mark.parametrize(
    ("settings", "X", "y", "message"),
    [
        ({"model": "wdcn"}, X, Y, r"unknown model 'wdcn'.*Expected one of: cnn1d, .*wdcnn"),
        ({"model_params": {"depth": 3}}, X, Y, r"'cnn1d' cannot be built with \{'depth': 3\}: .*argument 'depth'"),
        ({"model": "order_cnn", "width": 0.5}, X, Y, "'order_cnn' cannot be built .*'width'"),
        ({"model": "cnn2d"}, X, Y, "representation is None, but model 'cnn2d' takes time-frequency maps"),
        ({"model": "cnn2d", "representation": {"kind": "stft"}}, X, Y, "representation is .*'sampling_rate_hz'"),
        ({"model": "wdcnn"}, X, Y, "signals have 256 samples, but this network needs windows of at least 1024"),
        ({"lr": 0}, X, Y, "lr is 0"),
        ({"batch_size": 1}, X, Y, "batch_size is 1, expected an integer >= 2"),
        ({"epochs": 0}, X, Y, "epochs is 0"),
        ({"label_smoothing": 2}, X, Y, "label_smoothing is 2"),
        ({"optimizer": "adan"}, X, Y, "did you mean 'adam'"),
        ({"random_state": -1}, X, Y, "random_state is -1"),
        ({}, WITH_NAN, Y, "X contains NaN"),
        ({}, X, ["wear"] * 12, "y contains one class, wear"),
        ({}, X[:1], Y[:1], "minimum of 2 is required"),
        ({}, X, Y[:5], "inconsistent numbers of samples"),
        ({}, X[:, :, None], Y, r"expected \[windows, samples\] or \[windows, channels, samples\]"),
    ],
)
def test_fit_rejects_invalid_arguments(settings, X, y, message):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(X, y)


def test_rejects_invalid_windows_and_validation_labels():
    fitted = small(epochs=1).fit(X, Y)
    for windows in (X[..., :100], np.repeat(X, 2, axis=1)):
        with pytest.raises(ValueError, match=r"this SignalClassifier was fitted on \[1, 256\]"):
            fitted.predict(windows)
    with pytest.raises(ValueError, match="X contains NaN"):
        fitted.predict(WITH_NAN)
    with pytest.raises(ValueError, match=r"labels that do not occur in y: \['wear'\]"):
        small().fit(X, Y, validation_data=(X[:1], ["wear"]))


def test_raises_on_diverged_training():
    with pytest.raises(NonFiniteLossError):
        small(lr=1e9, optimizer="sgd", schedule="step", epochs=9).fit(X, Y)


# -- weights, losses, augmentation and networks ---------------------------------------------------------------


def weights_of(classifier):
    return torch.cat([parameter.flatten() for parameter in classifier.model_.parameters()])


def test_class_weights_and_a_criterion_with_the_same_weights_give_the_same_network():
    X, y = tones(30)
    y = np.where(np.arange(30) < 6, y, "slow")
    balanced = small(class_weight="balanced").fit(X, y)
    counts = dict(zip(*np.unique(y, return_counts=True), strict=True))
    explicit = {str(label): 30 / 3 / int(count) for label, count in counts.items()}
    by_label = small(class_weight=explicit).fit(X, y)
    criterion = nn.CrossEntropyLoss(torch.tensor([explicit[label] for label in ("fast", "middle", "slow")]))
    by_criterion = small(criterion=criterion).fit(X, y)
    for other in (by_label, by_criterion):
        torch.testing.assert_close(weights_of(other), weights_of(balanced), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(weights_of(small().fit(X, y)), weights_of(balanced), atol=1e-3)


def test_sample_weights_multiply_the_losses_of_windows():
    X, y = tones(24)
    ones = small().fit(X, y, sample_weight=np.ones(24))
    torch.testing.assert_close(weights_of(ones), weights_of(small().fit(X, y)), rtol=1e-4, atol=1e-5)
    wrong = y.copy()
    wrong[:6] = np.roll(y[:6], 1)
    weight = np.where(np.arange(24) < 6, 0.0, 1.0)
    assert small(epochs=15).fit(X, wrong, sample_weight=weight).score(X, y) == 1.0
    with pytest.raises(ValueError, match="Negative values in data"):
        small().fit(X, y, sample_weight=-weight)


@pytest.mark.parametrize(
    "augmentation", ["heavy", [[("polarity_flip", 1.0, 0.0)]], lambda signals, targets: (-signals, targets)]
)
def test_augmentation_changes_the_training_only(augmentation):
    X, y = tones(24)
    augmented = small(augmentation=augmentation).fit(X, y)
    assert augmented.history_["train_loss"] != small().fit(X, y).history_["train_loss"]
    assert augmented.predict_proba(X).shape == (24, 3)


def test_trains_a_copy_of_a_network_and_networks_of_a_function():
    X, y = tones(24)
    torch.manual_seed(0)
    network = create_model("cnn1d", 3, width=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fitted = small(network, epochs=3).fit(X, y)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert not torch.equal(weights_of(fitted), torch.cat([p.flatten() for p in network.parameters()]))
    by_name = small("cnn1d", width=0.5, random_state=5).fit(X, y)
    by_function = small(lambda n_classes, n_channels: create_model("cnn1d", n_classes, n_channels, width=0.5),
                        random_state=5).fit(X, y)  # fmt: skip
    assert torch.equal(weights_of(by_function), weights_of(by_name))
    assert clone(fitted).fit(X, y).history_["train_loss"] == fitted.history_["train_loss"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weight": "balance"}, "unknown class_weight 'balance'; did you mean 'balanced'"),
        ({"class_weight": {"rapid": 2.0}}, r"class_weight has labels that do not occur in y: \['rapid'\]"),
        ({"criterion": nn.CrossEntropyLoss(), "label_smoothing": 0.1}, "must be set in it instead"),
        ({"model": nn.Flatten(), "width": 0.5}, "width and model_params are for networks given by name"),
    ],
)
def test_rejects_weights_and_networks_that_contradict(settings, message):
    X, y = tones(12)
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(X, y)
