"""Trainers for networks on time-frequency maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whirl.dsp.masks import mask_bands, span_mask
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.batch import Batch, call_model
from whirl.engine.checkpoint import load_training
from whirl.engine.loop import split_loss
from whirl.engine.wrappers import unwrap
from whirl.training.interleaved_loaders import InterleavedLoaders as InterleavedLoaders
from whirl.training.trainer import Trainer

Representations = TimeFrequency | dict[str, TimeFrequency]


class SpectrogramTrainer(Trainer):
    """A `Trainer` with SpecAugment, which masks bands of time and of frequency of every map in training.

    The masks follow D. S. Park et al.: "SpecAugment: A Simple Data Augmentation Method for Automatic Speech
    Recognition", Interspeech 2019, without time warping. Every map has its own masks, the same for all its channels.
    The width of a mask is uniform in 0..`time_mask_param` (at most the axis), its position uniform among those where it
    fits. All draws come from torch's generators, so that a resumed run has the same masks as an uninterrupted one. With
    `use_specaugment=False` the result is bit-identical to that of `Trainer`.

    The loaders yield maps `[B, C, F, T]`, or signals `[B, C, T]` for a network with a `representation` such as
    `TimeFrequencyNetwork`, which computes the maps on the device; `augmentation` is then applied to the signals.
    Checkpoints hold the parameters of the representation, see `load_representation`.

    The logs also hold `train_masked_share`, the fraction of the maps' area that was masked. The default widths suit
    maps of 128 frequencies by 256 times and would mask most of a small map; see `mask_params`.

    Args:
        model: see `Trainer`, as for all arguments not listed here; `[B, C, F, T]` to logits `[B, K]`.
        use_specaugment: whether to mask.
        time_mask_param: maximum width of a time mask, in columns, >= 0.
        freq_mask_param: maximum width of a frequency mask, in rows, >= 0.
        num_time_masks: time masks per map, >= 0; they may overlap.
        num_freq_masks: frequency masks per map, >= 0.
        mask_value: value of masked elements: a number, or `'mean'`, the mean of each map and channel, which suits
            decibels, where 0 is loud.
        **kwargs: further keyword arguments of `Trainer`: `callbacks`, `lr_scheduler`, `mixed_precision`, ...

    Raises:
        TypeError: a keyword that `Trainer` does not have.
        ValueError: an argument is out of range, or a checkpoint has another representation.

    Example:
        >>> from whirl.models.cnn2d import CNN2d
        >>> batch = (torch.randn(16, 1, 32, 64), torch.arange(16) % 4)
        >>> trainer = SpectrogramTrainer(CNN2d(4), [batch], device="cpu", time_mask_param=10, freq_mask_param=5)
        >>> history = trainer.fit(2)
        >>> sorted(history)
        ['epoch_time_s', 'lr', 'train_accuracy', 'train_loss', 'train_masked_share']
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        criterion: nn.Module | Callable[..., Tensor] | None = None,
        device: str | torch.device = "cuda",
        use_specaugment: bool = True,
        time_mask_param: int = 40,
        freq_mask_param: int = 20,
        num_time_masks: int = 2,
        num_freq_masks: int = 2,
        *,
        mask_value: float | str = 0.0,
        **kwargs: Any,
    ) -> None:
        counts = {
            "time_mask_param": time_mask_param,
            "freq_mask_param": freq_mask_param,
            "num_time_masks": num_time_masks,
            "num_freq_masks": num_freq_masks,
        }
        for name, count in counts.items():
            if type(count) is not int or count < 0:
                raise ValueError(f"{name} is {count!r}, expected an integer >= 0")
        if mask_value != "mean" and not _is_finite(mask_value):
            raise ValueError(f"mask_value is {mask_value!r}, expected a number or 'mean'")
        super().__init__(model, train_loader, val_loader, optimizer, criterion, device, **kwargs)
        self.use_specaugment = use_specaugment
        self.time_mask_param, self.freq_mask_param = time_mask_param, freq_mask_param
        self.num_time_masks, self.num_freq_masks = num_time_masks, num_freq_masks
        self.mask_value = mask_value
        self._masked: tuple[Tensor, Tensor] | None = None

    @property
    def representation(self) -> Representations | None:
        """What computes the network's maps, by name if there are several; None if the loaders yield maps."""
        return getattr(unwrap(self.model), "representation", None)

    def apply_specaugment(self, spectrograms: Tensor) -> Tensor:
        """Mask bands of time and of frequency, also in evaluation mode.

        Args:
            spectrograms: `[B, C, F, T]`.

        Returns:
            New maps; elements outside the masks are unchanged.

        Raises:
            ValueError: the maps do not have four axes.
        """
        if spectrograms.ndim != 4:
            raise ValueError(
                f"spectrograms have shape {list(spectrograms.shape)}, expected [batch, channels, frequencies, times]"
            )
        n, _, n_frequencies, n_times = spectrograms.shape
        device, value = spectrograms.device, self.mask_value
        rows = span_mask(n, n_frequencies, self.freq_mask_param, self.num_freq_masks, device=device)
        columns = span_mask(n, n_times, self.time_mask_param, self.num_time_masks, device=device)
        self._masked = rows, columns
        if isinstance(value, str):
            return mask_bands(spectrograms, rows, columns, spectrograms.mean((2, 3), keepdim=True))
        return mask_bands(spectrograms, rows, columns, value)

    def prepare_batch(self, batch: Any) -> Batch:
        """Return maps, targets and metadata on the device; in training, augment the signals and mask the maps."""
        batch = super().prepare_batch(batch)
        representation = self._representation_of_batch()
        if representation is not None and batch.signals.ndim == 3:
            batch = batch._replace(signals=representation(batch.signals, batch.metadata))
        self._masked = None
        if self.use_specaugment and self.model.training:
            batch = batch._replace(signals=self.apply_specaugment(batch.signals))
        return batch

    def compute_loss(
        self, outputs: Tensor, targets: Tensor, signal: Tensor, metadata: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss, and in training the masked fraction of the maps as `masked_share`."""
        loss, components = split_loss(super().compute_loss(outputs, targets, signal, metadata))
        if self._masked is not None:
            open_rows, open_columns = (1 - mask.mean(1, dtype=torch.float32) for mask in self._masked)
            components["masked_share"] = 1 - (open_rows * open_columns).mean()
        return loss, components

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"representation": _config(self.representation)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        here = _config(self.representation)
        if state["representation"] != here:
            raise ValueError(f"its representation is {state['representation']}, but the network's is {here}")
        super().load_state_dict(state)

    def _representation_of_batch(self) -> TimeFrequency | None:
        found = self.representation
        return found if isinstance(found, nn.Module) else None


class MultiTFRTrainer(SpectrogramTrainer):
    """A `SpectrogramTrainer` with one loader for each of several representations.

    In an epoch every loader is used once, with their batches interleaved (see `InterleavedLoaders`). Each batch belongs
    to one representation and counts as one micro-batch of gradient accumulation. A loader yields maps `[B, C, F, T']`,
    or signals for a `MultiTFR`, which computes the maps of the representation with the loader's name. Any other network
    gets all maps alike.

    Weights are divided by their mean and multiply the losses of their batches in training. Equal weights therefore
    change nothing, and a single loader trains exactly like `SpectrogramTrainer`. A loader with more samples takes more
    steps, so it has more influence in an epoch unless its weight is lowered.

    Metrics of training and validation: `{name}_loss` and `{name}_accuracy` are unweighted means over the samples of a
    loader; `loss` and `accuracy` are their means over the loaders by weight, independent of the loaders' lengths. They
    do not measure the combined prediction of a `MultiTFR`, for which see `whirl.evaluation.prediction`.

    Args:
        model: see `SpectrogramTrainer`.
        train_loaders: by name, each with a length.
        val_loaders: by the same names; None or empty disables validation.
        tfr_weights: by the same names, > 0; None is equal weights.
        **kwargs: further arguments of `SpectrogramTrainer`.

    Raises:
        TypeError: loaders or weights are not a mapping, a loader has no length, or a keyword is unknown.
        ValueError: there is no loader or an empty one, the names differ, or a weight is out of range.

    Example:
        >>> from whirl.models.cnn2d import CNN2d
        >>> batch = (torch.randn(16, 1, 32, 64), torch.arange(16) % 4)
        >>> loaders = {"stft": [batch], "cwt": [batch, batch]}
        >>> trainer = MultiTFRTrainer(CNN2d(4), loaders, loaders, {"stft": 1.0, "cwt": 3.0}, device="cpu")
        >>> history = trainer.fit(1)
        >>> [loss], [stft], [cwt] = (history[f"val_{name}"] for name in ("loss", "stft_loss", "cwt_loss"))
        >>> loss == 0.25 * stft + 0.75 * cwt
        True
    """

    train_loader: InterleavedLoaders

    def __init__(
        self,
        model: nn.Module,
        train_loaders: Mapping[str, Any],
        val_loaders: Mapping[str, Any] | None,
        tfr_weights: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        for what, named in (
            ("train_loaders", train_loaders),
            ("val_loaders", val_loaders or {}),
            ("tfr_weights", tfr_weights or {}),
        ):
            if not isinstance(named, Mapping):
                raise TypeError(f"{what} is a {type(named).__name__}, expected a mapping, e.g. {{'stft': ...}}")
        weights = dict.fromkeys(train_loaders, 1.0) if tfr_weights is None else dict(tfr_weights)
        for what, named in (("val_loaders", val_loaders or train_loaders), ("tfr_weights", weights)):
            if set(named) != set(train_loaders):
                raise ValueError(f"{what} has the names {sorted(named)}, but train_loaders has {sorted(train_loaders)}")
        for name, weight in weights.items():
            if not _is_finite(weight) or weight <= 0:
                raise ValueError(f"the weight of {name!r} is {weight!r}, expected a number > 0")
        val_loader = InterleavedLoaders(val_loaders) if val_loaders else None
        super().__init__(model, InterleavedLoaders(train_loaders), val_loader, **kwargs)
        total = sum(weights.values())
        self.tfr_weights = {name: weights[name] / total for name in train_loaders}
        self._factors = {name: weights[name] * len(weights) / total for name in train_loaders}
        self._name = ""
        found = self.representation
        if isinstance(found, dict) and not set(train_loaders) <= set(found):
            raise ValueError(
                f"train_loaders has the names {sorted(train_loaders)}, but the network's maps are {sorted(found)}"
            )

    def prepare_batch(self, batch: Any) -> Batch:
        self._name, batch = batch
        return super().prepare_batch(batch)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, from the member of a `MultiTFR` that has the name of the loader."""
        if isinstance(self.representation, dict):
            return self.model(batch.signals, metadata=batch.metadata, representation=self._name)
        return call_model(self.model, batch)

    def compute_loss(
        self, outputs: Tensor, targets: Tensor, signal: Tensor, metadata: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted loss, with loss and accuracy of the loader as `{name}_loss` and `{name}_accuracy`."""
        loss, components = super().compute_loss(outputs, targets, signal, metadata)
        components[f"{self._name}_loss"] = loss.detach()
        n_correct, n_counted = self._objective.score(outputs, targets)
        if n_correct is not None:
            components[f"{self._name}_accuracy"] = n_correct / (len(targets) if n_counted is None else n_counted)
        return loss * self._factors[self._name], components

    def summarize(self, means: dict[str, float]) -> dict[str, float]:
        """Replace means over samples by means over loaders; an interrupted epoch may lack some loaders."""
        for metric in ("loss", "accuracy"):
            parts = {n: means[f"{n}_{metric}"] for n in self.tfr_weights if f"{n}_{metric}" in means}
            if parts:
                total = sum(self.tfr_weights[name] * value for name, value in parts.items())
                means[metric] = total / sum(self.tfr_weights[name] for name in parts)
        return means

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return state | {"loaders": self.train_loader.state_dict(within_epoch=state["tally"] is not None)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.train_loader.load_state_dict(state["loaders"])

    def _representation_of_batch(self) -> TimeFrequency | None:
        found = self.representation
        return found[self._name] if isinstance(found, dict) else found


def load_representation(checkpoint_path: str | Path) -> Representations | None:
    """Load the representation of a network from a checkpoint of `SpectrogramTrainer` or `MultiTFRTrainer`.

    Returns:
        The representation, or several by name; None if the loaders yielded maps.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or not a checkpoint of such a trainer.
    """
    state, _ = load_training(checkpoint_path)
    if "representation" not in state:
        raise ValueError(f"{checkpoint_path}: has no representation, so it is a checkpoint of another trainer")
    config = state["representation"]
    if config is None or "kind" in config:
        return None if config is None else TimeFrequency(**config)
    return {name: TimeFrequency(**part) for name, part in config.items()}


def mask_params(n_frequencies: int, n_times: int) -> dict[str, int]:
    """Return mask widths for maps of any size, in the same proportion as the defaults to maps of 128 by 256.

    Returns:
        `freq_mask_param` and `time_mask_param`, 5/32 of the axis each: two masks on each axis then cover 28 % of a map
        on average.

    Example:
        >>> mask_params(128, 256), mask_params(64, 64)
        ({'freq_mask_param': 20, 'time_mask_param': 40}, {'freq_mask_param': 10, 'time_mask_param': 10})
    """
    return {"freq_mask_param": round(n_frequencies * 5 / 32), "time_mask_param": round(n_times * 5 / 32)}


def _config(representation: Representations | None) -> dict[str, Any] | None:
    if isinstance(representation, dict):
        return {name: part.config for name, part in representation.items()}
    return None if representation is None else representation.config


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
