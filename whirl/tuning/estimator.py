"""The networks as scikit-learn classifiers, so that searches, cross-validation and pipelines can train them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from whirl.data.loaders import make_loader
from whirl.data.windows import standardize
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.callbacks import Callback, Logs
from whirl.engine.device import resolve_device
from whirl.engine.monitor import Improvement
from whirl.engine.random_state import get_random_state, set_random_state
from whirl.losses.cnn_losses import create_criterion
from whirl.models.registry import create_model
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.training.trainer import Trainer
from whirl.validation import check_count, check_number

_FOR_MAPS = ("cnn2d", "resnet18_2d")  # networks that take [B, C, F, T']
_PREDICT_BATCH = 256


class SignalClassifier(ClassifierMixin, BaseEstimator):
    """A network of the registry that learns windows of signals, as a scikit-learn classifier over `Trainer`.

    Parameters that a training run has too have its names, ranges and defaults, so what a search finds can be written
    into a run's settings. Weights, order and dropout follow from `random_state` alone: the same bits on the same CPU
    with as many threads, and the generators of torch, NumPy and Python are left as they were. They are shared within a
    process, so fits must not run in several threads of one; the processes that `n_jobs` starts are independent. Threads
    of torch are left as they are set. The speed of the shaft is not known here: networks that use it do without.

    Args:
        model: name of a network, see `registry.list_models`.
        epochs: passes over the windows, >= 1.
        batch_size: windows per step, >= 2 for batch normalisation; a last batch of one window is left out of an epoch.
        lr: highest learning rate, > 0.
        weight_decay: of the optimizer, >= 0.
        label_smoothing: share of the target spread over all classes, 0 to 1.
        optimizer: name, see `cnn_optimizer.optimizer_names`.
        schedule: of the learning rate, as long as the training, see `schedules.schedule_names`.
        width: share of the network's usual number of channels, > 0, for those that can be scaled (`cnn1d`, `wdcnn`,
            `resnet18_1d`).
        model_params: further arguments of the network, e.g. `{"dropout": 0.3}`. `hybrid_pinn`, `order_cnn` and
            `multi_tfr` want to know `sampling_rate_hz`; `multi_tfr` also `kinds` without order maps, which need the
            speed, e.g. `["stft", "cwt"]`.
        representation: arguments of the `TimeFrequency` whose maps the network sees instead of the signal, e.g.
            `{"kind": "stft", "sampling_rate_hz": 12000}`; `cnn2d` and `resnet18_2d` need one.
        standardize: each window and channel is brought to mean 0 and standard deviation 1, so that sensor offset and
            recorder gain, which often give the class away, are gone.
        device: `'auto'`, `'cpu'`, `'cuda'`, ...
        random_state: seed, >= 0; None or a `RandomState` draws one.

    Attributes:
        classes_: labels, sorted, `[K]`.
        model_: the trained network, in evaluation mode on the CPU.
        history_: training's numbers, `train_loss` and so on, one an epoch.
        n_features_in_: numbers in a window, C T.
        window_shape_: `(C, T)` of the windows it was fitted on.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.3, size=(40, 256))
        >>> X = noise + np.sin(np.outer(np.repeat([0.2, 0.5], 20), np.arange(256)))
        >>> y = np.repeat(["slow", "fast"], 20)
        >>> classifier = SignalClassifier("cnn1d", epochs=10, batch_size=8, width=0.5, device="cpu").fit(X, y)
        >>> classifier.predict(X[[0, -1]]), classifier.score(X, y)
        (array(['slow', 'fast'], dtype='<U4'), 1.0)
    """

    def __init__(
        self,
        model: str = "cnn1d",
        *,
        epochs: int = 20,
        batch_size: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
        label_smoothing: float = 0.0,
        optimizer: str = "adamw",
        schedule: str = "onecycle",
        width: float = 1.0,
        model_params: Mapping[str, Any] | None = None,
        representation: Mapping[str, Any] | None = None,
        standardize: bool = True,
        device: str | torch.device = "auto",
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.schedule = schedule
        self.width = width
        self.model_params = model_params
        self.representation = representation
        self.standardize = standardize
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation_data: tuple[Any, Any] | None = None,
        callbacks: Sequence[Callback | Callable[..., Any]] | None = None,
    ) -> SignalClassifier:
        """Train afresh.

        Args:
            X: windows, `[n, T]` or `[n, C, T]`, n >= 2.
            y: labels of any kind, `[n]`, of at least two classes.
            validation_data: `(X, y)` that is judged after every epoch, its labels among those of `y`. The logs and
                `history_` then hold `val_loss` and `val_accuracy`, and the weights of the epoch with the lowest
                `val_loss` are kept, as a run keeps them; without, those of the last epoch.
            callbacks: watch the training, or end it by `trainer.state.should_stop`. What they raise ends the fit.

        Returns:
            The classifier itself.

        Raises:
            ValueError: a parameter is unknown or out of its range; windows that are not finite, too few, too short for
                the network, or of one class; the loss became infinite or no number.
        """
        vars(self).pop(
            "model_", None
        )  # a network of an earlier fit does not belong to what this one leaves if it fails
        X, y = validate_data(self, X, y, dtype="float32", allow_nd=True, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]}, expected at least two classes")
        signals = self._signals(X)
        self.window_shape_ = tuple(signals.shape[1:])
        self.n_features_in_ = math.prod(self.window_shape_)
        train = TensorDataset(signals, torch.from_numpy(targets))
        val = None if validation_data is None else self._labelled(*validation_data)
        seed = _as_seed(self.random_state)
        with preserve_rng_state():
            torch.manual_seed(seed)
            trainer, best = self._trainer(train, val, seed, list(callbacks or ()))
            self.history_ = trainer.fit(check_count("epochs", self.epochs))
        if trainer.state.interrupted:
            raise KeyboardInterrupt("the training was interrupted before its end")
        if best is not None:
            best.restore()
        self.model_ = trainer.model.cpu().eval()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes.

        Args:
            X: windows, `[n, T]` or `[n, C, T]` as in `fit`.

        Returns:
            `[n, K]`, float64, 0 to 1, each row adds up to 1; columns are those of `classes_`.

        Raises:
            ValueError: the windows have another length or number of channels, or are not finite.
            NotFittedError: `fit` comes first.
        """
        check_is_fitted(self, "model_")
        return _logits(self.model_, self._known_windows(X), resolve_device(self.device)).double().softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each window, `[n]`.

        Args:
            X: as `predict_proba`.

        Raises:
            ValueError: as `predict_proba`.
            NotFittedError: `fit` comes first.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # -- windows ---------------------------------------------------------------------------------------

    def _signals(self, X: np.ndarray) -> Tensor:
        """Windows `[n, C, T]` as the network sees them."""
        if X.ndim > 3:
            raise ValueError(
                f"X has shape {list(X.shape)}, expected [windows, samples] or [windows, channels, samples]"
            )
        # torch warns of memory that it must not write to, such as what joblib maps.
        signals = torch.from_numpy(np.require(X, requirements=["C", "W"]))
        signals = signals.unsqueeze(1) if signals.ndim == 2 else signals
        return standardize(signals) if self.standardize else signals

    def _known_windows(self, X: Any) -> Tensor:
        """Windows to predict, `[n, C, T]`."""
        if np.asarray(X).ndim > 2:  # scikit-learn would take the channels for features
            X = check_array(X, dtype="float32", allow_nd=True, estimator=self, input_name="X")
        else:
            X = validate_data(self, X, dtype="float32", reset=False)
        signals = self._signals(X)
        if signals.shape[1:] != self.window_shape_:
            raise ValueError(
                f"X has windows [channels, samples] of {list(signals.shape[1:])}, but this {type(self).__name__} was "
                f"fitted on {list(self.window_shape_)}"
            )
        return signals

    def _labelled(self, X: Any, y: Any) -> TensorDataset:
        """Windows to validate with, and the places of their labels."""
        signals, y = self._known_windows(X), column_or_1d(y)
        check_consistent_length(signals, y)
        strange = np.setdiff1d(y, self.classes_)
        if len(strange):
            raise ValueError(f"validation_data has labels that y has not: {strange.tolist()}")
        return TensorDataset(signals, torch.from_numpy(np.searchsorted(self.classes_, y)))

    # -- training --------------------------------------------------------------------------------------

    def _trainer(self, train: Any, val: Any, seed: int, callbacks: list[Any]) -> tuple[Trainer, _BestWeights | None]:
        """The trainer, and what keeps the best weights where they can be told."""
        batch_size = check_count("batch_size", self.batch_size, minimum=2)
        model = self._new_model()
        optimizer = create_optimizer(self.optimizer, model.parameters(), self.lr, self.weight_decay)
        smoothing = check_number("label_smoothing", self.label_smoothing, 0, 1)
        # Batch normalisation cannot learn from a single window.
        drop_last = len(train) > batch_size and len(train) % batch_size == 1
        loader = make_loader(train, batch_size, shuffle=True, seed=seed, drop_last=drop_last)
        best = None if val is None else _BestWeights()
        trainer = Trainer(
            model,
            loader,
            None if val is None else make_loader(val, _PREDICT_BATCH),
            optimizer,
            create_criterion("ce", label_smoothing=smoothing),
            self.device,
            [*([] if best is None else [best]), *callbacks],
            lr_scheduler=create_training_scheduler(self.schedule, optimizer, self.epochs, len(loader)),
        )
        return trainer, best

    def _new_model(self) -> nn.Module:
        """The network with fresh weights, drawn from torch's global generator."""
        if self.model in _FOR_MAPS and self.representation is None:
            raise ValueError(
                f"model {self.model!r} sees maps: expected a representation, e.g. "
                "{'kind': 'stft', 'sampling_rate_hz': 12000}, got None"
            )
        arguments = {**({} if self.width == 1 else {"width": self.width}), **(self.model_params or {})}
        with _as_value_error(f"model {self.model!r} cannot be built with {arguments}"):
            network = create_model(self.model, len(self.classes_), self.window_shape_[0], **arguments)
        if self.representation is None:
            return network
        with _as_value_error(f"representation is {dict(self.representation)}"):
            return TimeFrequencyNetwork(TimeFrequency(**self.representation), network)


class _BestWeights(Callback):
    """Keeps the weights of the epoch with the lowest validation loss, in memory."""

    def __init__(self) -> None:
        self._improvement = Improvement("val_loss")
        self._kept: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._improvement.update(logs):
            self._kept = copy.deepcopy(self.trainer.model.state_dict())

    def restore(self) -> None:
        """Give them back to the network; what never improved keeps its last ones."""
        if self._kept:
            self.trainer.model.load_state_dict(self._kept)


def _logits(model: nn.Module, signals: Tensor, device: torch.device) -> Tensor:
    """Outputs `[n, K]` on the CPU, where the network stays, so that a pickle can be read on any machine."""
    try:
        model.to(device)
        with torch.inference_mode():
            return torch.cat([model(batch.to(device)).float().cpu() for batch in signals.split(_PREDICT_BATCH)])
    finally:
        model.cpu()


def _as_seed(random_state: Any) -> int:
    if isinstance(random_state, Integral):
        return check_count("random_state", int(random_state), minimum=0)
    return int(check_random_state(random_state).randint(2**31))


@contextmanager
def _as_value_error(what: str) -> Iterator[None]:
    """Arguments that are unknown or missing are values out of range: they are a user's, not a program's."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"{what}: {error}") from error


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """The process's random states are the same afterwards."""
    before = get_random_state()
    try:
        yield
    finally:
        set_random_state(before)
