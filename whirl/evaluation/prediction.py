"""Predictions of a network for windows, and their aggregation to recordings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.data.loaders import make_loader
from whirl.data.windows import WindowDataset
from whirl.engine.batch import as_batch, call_model
from whirl.engine.modes import eval_mode

UNKNOWN = -1
"""Target of rows without a label, or with a label that is not among the classes."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of W windows, or of W recordings after `aggregate_by_recording`.

    Attributes:
        probabilities: `[W, K]`, float64, 0 to 1, each row sums to 1.
        targets: index of the true class, `[W]`, int64, 0 to K - 1, or `UNKNOWN`.
        recording: index of the recording of each row, `[W]`, int64, >= 0.
        threshold: probability of the second of two classes above which it is predicted.

    Raises:
        ValueError: the shapes do not match, or a number is out of range.

    Example:
        >>> predictions = Predictions(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, UNKNOWN]), np.array([0, 1]))
        >>> predictions.predicted.tolist(), predictions.known.tolist()
        ([0, 1], [True, False])
    """

    probabilities: np.ndarray
    targets: np.ndarray
    recording: np.ndarray
    threshold: float = 0.5

    def __post_init__(self) -> None:
        probabilities = np.asarray(self.probabilities, dtype=np.float64)
        if probabilities.ndim != 2 or 0 in probabilities.shape:
            raise ValueError(f"probabilities have shape {probabilities.shape}, expected [windows, classes], not empty")
        n_windows, n_classes = probabilities.shape
        if not np.isfinite(probabilities).all():
            bad = np.unique(np.asarray(self.recording)[~np.isfinite(probabilities).all(1)])
            raise ValueError(f"the probabilities are not finite for recording {bad[0]} and {len(bad) - 1} others")
        if not np.allclose(probabilities.sum(1), 1, atol=1e-3) or probabilities.min() < 0:
            raise ValueError("probabilities are not >= 0 with a sum of 1 in every row; are these logits?")
        object.__setattr__(self, "probabilities", probabilities)
        for name, low, high in (("targets", UNKNOWN, n_classes), ("recording", 0, np.inf)):
            indices = np.asarray(getattr(self, name), dtype=np.int64)
            if indices.shape != (n_windows,):
                raise ValueError(f"{name} have shape {indices.shape}, expected [{n_windows}]")
            if indices.min() < low or indices.max() >= high:
                raise ValueError(f"{name} range from {indices.min()} to {indices.max()}, with {n_classes} classes")
            object.__setattr__(self, name, indices)

    @property
    def predicted(self) -> np.ndarray:
        """Indices of the predicted class, `[W]`, see `decide`."""
        return decide(self.probabilities, self.threshold)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, `[W]`."""
        return np.take_along_axis(self.probabilities, self.predicted[:, None], 1)[:, 0]

    @property
    def known(self) -> np.ndarray:
        """Mask of the rows whose true class is known, `[W]`."""
        return self.targets != UNKNOWN

    def select(self, rows: np.ndarray) -> Predictions:
        """Return the selected rows, by mask or by index."""
        return replace(
            self, probabilities=self.probabilities[rows], targets=self.targets[rows], recording=self.recording[rows]
        )


def decide(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return the index of the most probable class; of two classes, the second above a threshold.

    Args:
        probabilities: `[..., K]`.
        threshold: probability above which the second of two classes is predicted, 0 to 1; 0.5 for other numbers.

    Example:
        >>> decide(np.array([[0.6, 0.4], [0.9, 0.1]]), 0.3)
        array([1, 0])
    """
    if threshold == 0.5:
        return probabilities.argmax(-1)
    return (probabilities[..., 1] > threshold).astype(np.int64)


def predict_windows(
    model: nn.Module,
    data: WindowDataset | Iterable[Any],
    device: str | torch.device | None = None,
    batch_size: int = 256,
) -> Predictions:
    """Predict the class probabilities of every window, in evaluation mode and without gradients.

    Args:
        model: network that maps signals `[B, C, T]` to logits `[B, K]`. It is moved to `device`; the training mode of
            each of its modules is restored afterwards.
        data: a `WindowDataset`, or batches `(signals, targets, metadata)` whose metadata contain the index of the
            `"recording"` of each window.
        device: device to compute on; None for the device of the network.
        batch_size: windows per batch if `data` is a `WindowDataset`.

    Returns:
        Predictions with one row per window, in the order of `data`.

    Raises:
        ValueError: there is no window, a batch has no recording indices, the network has one output only, or an output
            is not finite.

    Example:
        >>> batch = (torch.randn(4, 1, 64), torch.tensor([0, 0, 1, 1]), {"recording": torch.tensor([0, 0, 1, 1])})
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> predict_windows(network, [batch]).probabilities.shape
        (4, 3)
    """
    outputs, targets, recording = predict_outputs(model, data, device, batch_size)
    if outputs.shape[1] < 2:
        raise ValueError(
            "the network has one output, expected logits of at least two classes: wrap a network with one logit in "
            "whirl.models.OneLogit, or call whirl.evaluation.predict_values for a number"
        )
    return Predictions(outputs.softmax(1).numpy(), targets, recording)


def predict_outputs(
    model: nn.Module,
    data: WindowDataset | Iterable[Any],
    device: str | torch.device | None = None,
    batch_size: int = 256,
    *,
    float_targets: bool = False,
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Compute the outputs of a network for every window; arguments and errors as for `predict_windows`.

    Args:
        model: network that maps signals `[B, C, T]` to outputs `[B, K]`.
        data: windows or batches.
        device: device to compute on.
        batch_size: windows per batch if `data` is a `WindowDataset`.
        float_targets: accept targets that are floating-point numbers.

    Returns:
        Outputs `[W, K]`, float32 on the CPU, targets `[W]`, and the index of the recording of each window, `[W]`.
    """
    batches = make_loader(data, batch_size) if isinstance(data, WindowDataset) else data
    device = torch.device(device) if device is not None else _device_of(model)
    rows: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    with eval_mode(model.to(device)), torch.inference_mode():
        for batch in batches:
            batch = as_batch(batch, device, float_targets=float_targets)
            if "recording" not in batch.metadata:
                raise ValueError("a batch has no recording indices, expected (signals, targets, {'recording': ...})")
            rows.append((call_model(model, batch).float(), batch.targets, batch.metadata["recording"]))
    if not rows:
        raise ValueError("data is empty, expected at least one window")
    outputs, targets, recording = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return outputs, targets.numpy(), recording.numpy()


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def aggregate_by_recording(predictions: Predictions) -> Predictions:
    """Average the probabilities of the windows of each recording (soft voting).

    The mean is the probability of a class in a window drawn at random from the recording. The mean of log
    probabilities would multiply the windows as if they were independent: one confidently wrong window could rule out a
    class, and overlapping windows would cause overconfidence.

    Returns:
        Predictions with one row per recording, in ascending order of its index.

    Raises:
        ValueError: windows of one recording have different targets.

    Example:
        >>> windows = Predictions(np.array([[0.6, 0.4], [0.1, 0.9], [1.0, 0.0]]), np.array([1, 1, 0]),
        ...                       np.array([7, 7, 2]))
        >>> recordings = aggregate_by_recording(windows)
        >>> recordings.recording.tolist(), recordings.probabilities.tolist(), recordings.targets.tolist()
        ([2, 7], [[1.0, 0.0], [0.35, 0.65]], [0, 1])
    """
    recording, first, row = np.unique(predictions.recording, return_index=True, return_inverse=True)
    targets = predictions.targets[first]
    if not np.array_equal(targets[row], predictions.targets):
        raise ValueError("windows of one recording have different targets")
    sums = np.zeros((len(recording), predictions.probabilities.shape[1]))
    np.add.at(sums, row, predictions.probabilities)
    return Predictions(sums / np.bincount(row)[:, None], targets, recording, predictions.threshold)
