"""A scikit-learn classifier for the networks, for use in searches, cross-validation and pipelines."""

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
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from whirl.augment.policies import make_augmentation
from whirl.callbacks.best_weights import BestWeights
from whirl.data.loaders import make_loader
from whirl.data.windows import standardize
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.callbacks import Callback
from whirl.engine.device import resolve_device
from whirl.engine.objective import SAMPLE_WEIGHT
from whirl.engine.random_state import get_random_state, set_random_state
from whirl.losses.class_weights import compute_class_weights
from whirl.losses.cnn_losses import create_criterion
from whirl.models.registry import create_model
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.training.trainer import Trainer
from whirl.validation import check_count, check_name, check_number

_MAP_NETWORKS = ("cnn2d", "resnet18_2d")  # networks whose input is [B, C, F, T']
_PREDICT_BATCH = 256


class SignalClassifier(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier that trains a network of the registry on windows of signals, based on `Trainer`.

    Parameters that also exist in a training run have the same names, ranges and defaults, so the result of a search can
    be used as settings of a run. Weights, data order and dropout depend only on `random_state`: results are bitwise
    equal on the same CPU with the same number of threads. The random states of torch, NumPy and Python are restored
    after a fit. They are global to a process, so fits must not run in several threads of one process; the processes
    started by `n_jobs` are independent. The number of torch threads is not changed. Shaft speeds are not available, so
    networks that can use them run without.

    Args:
        model: name of a network, see `registry.list_models`; or a function `(num_classes, in_channels)` that creates
            one; or a network, of which every fit trains a copy with its current weights.
        epochs: number of passes over the training data, >= 1.
        batch_size: windows per step, >= 2 for batch normalization; a last batch of one window is dropped.
        lr: peak learning rate, > 0.
        weight_decay: weight decay of the optimizer, >= 0.
        label_smoothing: share of the target that is spread over all classes, 0 to 1.
        class_weight: `'balanced'` for weights inversely proportional to the frequency of the classes, see
            `losses.compute_class_weights`; or `{label: weight}`, 1 for labels left out; None for equal weights.
        criterion: loss of `(logits [B, K], targets [B])`, of which every fit uses a copy; None for cross entropy with
            `label_smoothing` and `class_weight`.
        optimizer: name of the optimizer, see `cnn_optimizer.optimizer_names`.
        schedule: name of the learning rate schedule over the complete training, see
            `scheduler_factory.schedule_names`.
        width: number of channels relative to the default of the network, > 0, for networks that can be scaled (`cnn1d`,
            `wdcnn`, `resnet18_1d`).
        model_params: further arguments of the network, e.g. `{"dropout": 0.3}`. `hybrid_pinn`, `order_cnn` and
            `multi_tfr` require `sampling_rate_hz`; `multi_tfr` also requires `kinds` without order maps, which depend
            on the speed, e.g. `["stft", "cwt"]`.
        augmentation: augmentation of the training windows: the name of a preset or a policy, see
            `augment.make_augmentation`; an `Augmentation`; or a function `(signals, targets) -> (signals, targets)`.
        representation: arguments of the `TimeFrequency` that computes the input maps of the network, e.g.
            `{"kind": "stft", "sampling_rate_hz": 12000}`; required by `cnn2d` and `resnet18_2d`; None to use the
            signal.
        standardize: whether to scale each window and channel to mean 0 and standard deviation 1, which removes sensor
            offset and gain; these often reveal the class.
        device: `'auto'`, `'cpu'`, `'cuda'`, ...
        random_state: seed, >= 0; None or a `RandomState` to draw one.

    Attributes:
        classes_: sorted labels, `[K]`.
        model_: the trained network, in evaluation mode on the CPU.
        history_: metrics per epoch, such as `train_loss`.
        n_features_in_: number of values in a window, C T.
        window_shape_: `(C, T)` of the training windows.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.3, size=(40, 256))
        >>> X = noise + np.sin(np.outer(np.repeat([0.2, 0.5], 20), np.arange(256)))
        >>> y = np.repeat(["slow", "fast"], 20)
        >>> classifier = SignalClassifier("cnn1d", epochs=10, batch_size=8, width=0.5, device="cpu").fit(X, y)
        >>> classifier.predict(X[[0, -1]]), classifier.score(X, y)
        (array(['slow', 'fast'], dtype='<U4'), 1.0)
    """

    reports_epochs = True  # see `BayesianOptimizer.optimize`

    def __init__(
        self,
        model: str | nn.Module | Callable[[int, int], nn.Module] = "cnn1d",
        *,
        epochs: int = 20,
        batch_size: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
        label_smoothing: float = 0.0,
        class_weight: str | Mapping[Any, float] | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        optimizer: str = "adamw",
        schedule: str = "onecycle",
        width: float = 1.0,
        model_params: Mapping[str, Any] | None = None,
        augmentation: Any = None,
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
        self.class_weight = class_weight
        self.criterion = criterion
        self.optimizer = optimizer
        self.schedule = schedule
        self.width = width
        self.model_params = model_params
        self.augmentation = augmentation
        self.representation = representation
        self.standardize = standardize
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        validation_data: tuple[Any, Any] | None = None,
        callbacks: Sequence[Callback | Callable[..., Any]] | None = None,
    ) -> SignalClassifier:
        """Train a new network.

        Args:
            X: windows, `[n, T]` or `[n, C, T]`, n >= 2.
            y: labels of any type, `[n]`, of at least two classes.
            sample_weight: factor of the loss of each window, `[n]`, >= 0; None for 1.
            validation_data: `(X, y)` to evaluate after every epoch; its labels must occur in `y`. The logs and
                `history_` then contain `val_loss` and `val_accuracy`, and the weights of the epoch with the lowest
                `val_loss` are kept, as in a run; without it, those of the last epoch.
            callbacks: callbacks of the training, which may stop it by `trainer.state.should_stop`. Their exceptions are
                raised.

        Returns:
            The classifier itself.

        Raises:
            ValueError: a parameter is unknown or out of range; the windows are not finite, too few, too short for the
                network, or of one class; the loss became NaN or infinite.
        """
        vars(self).pop("model_", None)  # if this fit fails, the classifier must count as not fitted
        X, y = validate_data(self, X, y, dtype="float32", allow_nd=True, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y contains one class, {self.classes_[0]}, expected at least two classes")
        signals = self._signals(X)
        self.window_shape_ = tuple(signals.shape[1:])
        self.n_features_in_ = math.prod(self.window_shape_)
        train: TensorDataset = TensorDataset(signals, torch.from_numpy(targets))
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float32, ensure_non_negative=True)
            train = _WeightedWindows(*train.tensors, torch.from_numpy(weights))
        val = None if validation_data is None else self._validation_set(*validation_data)
        seed = _as_seed(self.random_state)
        with preserve_rng_state():
            torch.manual_seed(seed)
            trainer, best = self._trainer(train, val, seed, list(callbacks or ()))
            # A plain dict: pickles carry nothing of the engine.
            self.history_ = dict(trainer.fit(check_count("epochs", self.epochs)))
        if trainer.state.interrupted:
            raise KeyboardInterrupt("the training was interrupted")
        if best is not None:
            best.restore()
        self.model_ = trainer.model.cpu().eval()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities.

        Args:
            X: windows, `[n, T]` or `[n, C, T]` as in `fit`.

        Returns:
            Probabilities `[n, K]`, float64; rows sum to 1, and columns are in the order of `classes_`.

        Raises:
            ValueError: the windows differ in length or number of channels from those of `fit`, or are not finite.
            NotFittedError: `fit` was not called before.
        """
        check_is_fitted(self, "model_")
        return _logits(self.model_, self._fitted_windows(X), resolve_device(self.device)).double().softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each window.

        Args:
            X: windows, see `predict_proba`.

        Returns:
            Labels `[n]`.

        Raises:
            ValueError: see `predict_proba`.
            NotFittedError: `fit` was not called before.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # -- windows ---------------------------------------------------------------------------------------

    def _signals(self, X: np.ndarray) -> Tensor:
        """Convert validated windows to the input of the network, `[n, C, T]`."""
        if X.ndim > 3:
            raise ValueError(
                f"X has shape {list(X.shape)}, expected [windows, samples] or [windows, channels, samples]"
            )
        # torch warns about read-only memory, such as arrays that joblib maps.
        signals = torch.from_numpy(np.require(X, requirements=["C", "W"]))
        signals = signals.unsqueeze(1) if signals.ndim == 2 else signals
        return standardize(signals) if self.standardize else signals

    def _fitted_windows(self, X: Any) -> Tensor:
        """Validate windows against those of `fit`, and convert them to `[n, C, T]`."""
        if np.asarray(X).ndim > 2:  # scikit-learn would count the channels as features
            X = check_array(X, dtype="float32", allow_nd=True, estimator=self, input_name="X")
        else:
            X = validate_data(self, X, dtype="float32", reset=False)
        signals = self._signals(X)
        if signals.shape[1:] != self.window_shape_:
            raise ValueError(
                f"X has windows of shape {list(signals.shape[1:])} (channels, samples), but this "
                f"{type(self).__name__} was fitted on {list(self.window_shape_)}"
            )
        return signals

    def _validation_set(self, X: Any, y: Any) -> TensorDataset:
        """Return validation windows and the class indices of their labels."""
        signals, y = self._fitted_windows(X), column_or_1d(y)
        check_consistent_length(signals, y)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"validation_data has labels that do not occur in y: {unknown.tolist()}")
        return TensorDataset(signals, torch.from_numpy(np.searchsorted(self.classes_, y)))

    # -- training --------------------------------------------------------------------------------------

    def _trainer(self, train: Any, val: Any, seed: int, callbacks: list[Any]) -> tuple[Trainer, BestWeights | None]:
        """Create the trainer, and with validation data the callback that keeps the best weights."""
        batch_size = check_count("batch_size", self.batch_size, minimum=2)
        model = self._new_model()
        optimizer = create_optimizer(self.optimizer, model.parameters(), self.lr, self.weight_decay)
        criterion = self._criterion(train.tensors[1])
        # Batch normalization cannot train on a single window.
        drop_last = len(train) > batch_size and len(train) % batch_size == 1
        loader = make_loader(train, batch_size, shuffle=True, seed=seed, drop_last=drop_last)
        best = None if val is None else BestWeights()
        trainer = Trainer(
            model,
            loader,
            None if val is None else make_loader(val, _PREDICT_BATCH),
            optimizer,
            criterion,
            self.device,
            [*([] if best is None else [best]), *callbacks],
            lr_scheduler=create_training_scheduler(self.schedule, optimizer, self.epochs, len(loader)),
            augmentation=self._augmentation(),
        )
        return trainer, best

    def _criterion(self, targets: Tensor) -> Any:
        """Return the loss of a training, given the class indices of its windows."""
        smoothing = check_number("label_smoothing", self.label_smoothing, 0, 1)
        if self.criterion is None:
            return create_criterion("ce", weight=self._class_weights(targets), label_smoothing=smoothing)
        if smoothing or self.class_weight is not None:
            raise ValueError("criterion is given, so label_smoothing and class_weight must be set in it instead")
        return copy.deepcopy(self.criterion)

    def _class_weights(self, targets: Tensor) -> Tensor | None:
        if self.class_weight is None:
            return None
        if isinstance(self.class_weight, str):
            check_name("class_weight", self.class_weight, ("balanced",))
            return compute_class_weights(targets, len(self.classes_))
        unknown = [label for label in self.class_weight if label not in self.classes_.tolist()]
        if unknown:
            raise ValueError(f"class_weight has labels that do not occur in y: {unknown}")
        return torch.tensor([float(self.class_weight.get(label, 1.0)) for label in self.classes_.tolist()])

    def _augmentation(self) -> Any:
        """Return the augmentation; functions and objects are passed on."""
        is_setting = isinstance(self.augmentation, str | Sequence)
        return make_augmentation(self.augmentation) if is_setting else copy.deepcopy(self.augmentation)

    def _new_model(self) -> nn.Module:
        """Create the network with initial weights drawn from torch's global generator."""
        network = self._plain_network()
        if self.representation is None:
            return network
        with _as_value_error(f"representation is {dict(self.representation)}"):
            return TimeFrequencyNetwork(TimeFrequency(**self.representation), network)

    def _plain_network(self) -> nn.Module:
        """Create the network without the transform of its input."""
        if not isinstance(self.model, str):
            if self.model_params or self.width != 1:
                raise ValueError(
                    "width and model_params are for networks given by name, expected width=1 and no params"
                )
            if isinstance(self.model, nn.Module):
                return copy.deepcopy(self.model)
            return self.model(len(self.classes_), self.window_shape_[0])
        if self.model in _MAP_NETWORKS and self.representation is None:
            raise ValueError(
                f"representation is None, but model {self.model!r} takes time-frequency maps: expected e.g. "
                "{'kind': 'stft', 'sampling_rate_hz': 12000}"
            )
        arguments = {**({} if self.width == 1 else {"width": self.width}), **(self.model_params or {})}
        with _as_value_error(f"model {self.model!r} cannot be built with {arguments}"):
            return create_model(self.model, len(self.classes_), self.window_shape_[0], **arguments)


class _WeightedWindows(TensorDataset):
    """Windows, class indices and weights, with the weights as metadata of a batch."""

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        signals, targets, weights = super().__getitem__(index)
        return signals, targets, {SAMPLE_WEIGHT: weights}


def _logits(model: nn.Module, signals: Tensor, device: torch.device) -> Tensor:
    """Return logits `[n, K]` on the CPU; the network is moved back there, so that pickles load on any machine."""
    try:
        model.to(device)
        with torch.inference_mode():
            return torch.cat([model(batch.to(device)).float().cpu() for batch in signals.split(_PREDICT_BATCH)])
    finally:
        model.cpu()


def _as_seed(random_state: Any) -> int:
    """Return an integer seed, drawn if `random_state` is None or a `RandomState`."""
    if isinstance(random_state, Integral):
        return check_count("random_state", int(random_state), minimum=0)
    return int(check_random_state(random_state).randint(2**31))


@contextmanager
def _as_value_error(what: str) -> Iterator[None]:
    """Raise a `TypeError` about unknown or missing arguments as `ValueError`, since they stem from parameter values."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"{what}: {error}") from error


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the global random states of the process after the block."""
    before = get_random_state()
    try:
        yield
    finally:
        set_random_state(before)
