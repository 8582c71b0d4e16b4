"""What a network says about windows, and what their recordings make of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.data.loaders import make_loader
from whirl.data.windows import WindowDataset
from whirl.engine.batch import as_batch, call_model

UNKNOWN = -1
"""Target of what has no label, or a label the network was never taught."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of W windows, or of W recordings after `vote`.

    Attributes:
        probabilities: `[W, K]`, float64, 0 to 1, each row adds up to 1.
        targets: index of the true class, `[W]`, int64, 0 to K - 1, or `UNKNOWN`.
        recording: index of the recording that each row came from, `[W]`, int64, >= 0.

    Raises:
        ValueError: the shapes do not fit, or a number is out of range.

    Example:
        >>> predictions = Predictions(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, UNKNOWN]), np.array([0, 1]))
        >>> predictions.predicted.tolist(), predictions.known.tolist()
        ([0, 1], [True, False])
    """

    probabilities: np.ndarray
    targets: np.ndarray
    recording: np.ndarray

    def __post_init__(self) -> None:
        probabilities = np.asarray(self.probabilities, dtype=np.float64)
        if probabilities.ndim != 2 or 0 in probabilities.shape:
            raise ValueError(f"probabilities have shape {probabilities.shape}, expected [windows, classes], not empty")
        n_windows, n_classes = probabilities.shape
        if not np.isfinite(probabilities).all():
            bad = np.unique(np.asarray(self.recording)[~np.isfinite(probabilities).all(1)])
            raise ValueError(f"the network's output is not finite for recording {bad[0]} and {len(bad) - 1} others")
        if not np.allclose(probabilities.sum(1), 1, atol=1e-3) or probabilities.min() < 0:
            raise ValueError("probabilities must be >= 0 and add up to 1 in every row; are these logits?")
        object.__setattr__(self, "probabilities", probabilities)
        for name, low, high in (("targets", UNKNOWN, n_classes), ("recording", 0, np.inf)):
            indices = np.asarray(getattr(self, name), dtype=np.int64)
            if indices.shape != (n_windows,):
                raise ValueError(f"{name} have shape {indices.shape}, expected [{n_windows}]")
            if indices.min() < low or indices.max() >= high:
                raise ValueError(f"{name} range from {indices.min()} to {indices.max()} with {n_classes} classes")
            object.__setattr__(self, name, indices)

    @property
    def predicted(self) -> np.ndarray:
        """Index of the most probable class, `[W]`."""
        return self.probabilities.argmax(1)

    @property
    def known(self) -> np.ndarray:
        """Whether the true class is known, `[W]`."""
        return self.targets != UNKNOWN

    def select(self, rows: np.ndarray) -> Predictions:
        """Some of the rows, by mask or by index."""
        return Predictions(self.probabilities[rows], self.targets[rows], self.recording[rows])


def predict_windows(
    model: nn.Module,
    data: WindowDataset | Iterable[Any],
    device: str | torch.device | None = None,
    batch_size: int = 256,
) -> Predictions:
    """Ask a network about every window, in evaluation mode and without gradients.

    Args:
        model: network `[B, C, T] -> [B, K]`, logits. It is moved to `device`; each of its modules has its
            training mode back afterwards.
        data: a `WindowDataset`, or batches `(signals, targets, metadata)` whose metadata name the
            `"recording"` of each window.
        device: where to compute; None stays where the network is.
        batch_size: windows at once, for a data set; batches keep their own size.

    Returns:
        One row per window, in the order of `data`.

    Raises:
        ValueError: there is no window, a batch does not name its recordings, or an output is not finite.

    Example:
        >>> batch = (torch.randn(4, 1, 64), torch.tensor([0, 0, 1, 1]), {"recording": torch.tensor([0, 0, 1, 1])})
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> predict_windows(network, [batch]).probabilities.shape
        (4, 3)
    """
    batches = make_loader(data, batch_size) if isinstance(data, WindowDataset) else data
    device = torch.device(device) if device is not None else _device_of(model)
    rows: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    with eval_mode(model.to(device)), torch.inference_mode():
        for batch in batches:
            batch = as_batch(batch, device)
            if "recording" not in batch.metadata:
                raise ValueError(
                    "a batch does not name its recordings: expected (signals, targets, {'recording': ...})"
                )
            probabilities = call_model(model, batch).float().softmax(1)
            rows.append((probabilities, batch.targets, batch.metadata["recording"]))
    if not rows:
        raise ValueError("there is no window to predict")
    probabilities, targets, recording = (torch.cat(column).cpu().numpy() for column in zip(*rows, strict=True))
    return Predictions(probabilities, targets, recording)


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module has the mode it had, frozen ones too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def aggregate_by_recording(predictions: Predictions) -> Predictions:
    """One row per recording: the mean of the probabilities of its windows (soft vote).

    The mean is the probability of a class in a window drawn at random from the recording. Unlike the mean
    of logarithms, which multiplies windows as if they were independent evidence, it lets no single
    window that is certain and wrong veto a class, and overlapping windows do not make it overconfident.

    Returns:
        Rows in ascending order of the recording's index.

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
        raise ValueError("the windows of one recording have different targets")
    sums = np.zeros((len(recording), predictions.probabilities.shape[1]))
    np.add.at(sums, row, predictions.probabilities)
    return Predictions(sums / np.bincount(row)[:, None], targets, recording)
