"""Trainers for networks that see time-frequency maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from whirl.dsp.masks import mask_bands, span_mask
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.batch import Batch, call_model
from whirl.engine.checkpoint import load_training
from whirl.engine.loop import StepResult
from whirl.engine.random_state import get_random_state, set_random_state
from whirl.training.trainer import Trainer, set_epoch

Representations = TimeFrequency | dict[str, TimeFrequency]


class SpectrogramTrainer(Trainer):
    """A `Trainer` with SpecAugment: in training, bands of time and of frequency of every map are masked.

    D. S. Park et al.: "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", Interspeech
    2019, without its time warping. Every map has masks of its own, the same for all its channels; a width is uniform
    in 0..`time_mask_param` (and no more than the axis), a place uniform among those where the mask fits. All draws are
    torch's own, so that a resumed run sees the masks of the uninterrupted one. With `use_specaugment=False` this is
    `Trainer`, to the bit.

    The loaders yield maps `[B, C, F, T]`, or signals `[B, C, T]` for a network with a `representation`, as
    `TimeFrequencyNetwork` has, which makes the maps on the device; `augmentation` then sees the signals. Checkpoints
    hold the representation's parameters, see `load_representation`.

    The logs hold `train_masked_share` besides: the share of the maps' area that was masked. Widths that suit maps of
    128 frequencies by 256 times, as the defaults do, leave little of a small one; see `mask_params`.

    Args:
        model: see `Trainer`, as for every argument not named here; `[B, C, F, T]` to logits `[B, K]`.
        use_specaugment: whether to mask.
        time_mask_param: largest width of a mask of times, in columns, >= 0.
        freq_mask_param: largest width of a mask of frequencies, in rows, >= 0.
        num_time_masks: masks of times of each map, >= 0; they may overlap.
        num_freq_masks: masks of frequencies of each map, >= 0.
        mask_value: what takes the place: a number, or `'mean'`, the mean of each map and channel, which suits
            decibels, where 0 is loud.
        **kwargs: `callbacks`, `lr_scheduler`, `mixed_precision` and whatever else `Trainer` takes.

    Raises:
        TypeError: a keyword that `Trainer` does not take.
        ValueError: an argument out of its range; a checkpoint of another representation.

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
        """What makes the network's maps, by name where there are several; None where the loaders yield maps."""
        return getattr(unwrap_model(self.model), "representation", None)

    def apply_specaugment(self, spectrograms: Tensor) -> Tensor:
        """Mask bands of time and of frequency, whatever mode the network is in.

        Args:
            spectrograms: `[B, C, F, T]`.

        Returns:
            New maps; what is not masked is the same to the bit.

        Raises:
            ValueError: maps of another number of axes.
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
        """Maps, targets and metadata on the device; in training, signals augmented and maps masked."""
        batch = super().prepare_batch(batch)
        representation = self._representation_of_batch()
        if representation is not None and batch.signals.ndim == 3:
            batch = batch._replace(signals=representation(batch.signals, batch.metadata))
        self._masked = None
        if self.use_specaugment and self.model.training:
            batch = batch._replace(signals=self.apply_specaugment(batch.signals))
        return batch

    def step(self, batch: Any) -> StepResult:
        result = super().step(batch)
        if self._masked is not None:
            kept_rows, kept_columns = (1 - mask.mean(1, dtype=torch.float32) for mask in self._masked)
            result.components["masked_share"] = 1 - (kept_rows * kept_columns).mean()
        return result

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"representation": _config(self.representation)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        here = _config(self.representation)
        if state["representation"] != here:
            raise ValueError(f"its representation is {state['representation']}, here it is {here}")
        super().load_state_dict(state)

    def _representation_of_batch(self) -> TimeFrequency | None:
        found = self.representation
        return found if isinstance(found, nn.Module) else None


class _Named(NamedTuple):
    """A batch, and the name of the loader it comes from."""

    name: str
    batch: Any


class InterleavedLoaders:
    """Several loaders as one: each is gone through once, and their batches take turns.

    Batch j of a loader with n batches stands at (j + 1/2) / n of the pass, so a loader with twice as many batches comes
    twice as often, and all end together; where two meet, the first named goes first. The order depends on the
    lengths alone.

    In training it resumes exactly, in mid-epoch too: the generators of all loaders are kept, and whatever
    a loader draws from torch's own at its beginning it draws before the first batch is handed out.

    Args:
        loaders: by name; each has a length, and begins anew whenever it is iterated over.

    Raises:
        TypeError: a loader without a length.
        ValueError: no loader, or an empty one.

    Example:
        >>> [name for name, _ in InterleavedLoaders({"a": [1, 2, 3, 4], "b": [5, 6]})]
        ['a', 'b', 'a', 'a', 'b', 'a']
    """

    def __init__(self, loaders: Mapping[str, Any]) -> None:
        if not loaders:
            raise ValueError("there is no loader; expected at least one by name")
        for name, loader in loaders.items():
            if not hasattr(loader, "__len__"):
                raise TypeError(f"the loader {name!r} has no length, so its batches cannot be placed among the others")
            if len(loader) == 0:
                raise ValueError(f"the loader {name!r} has no batch")
        self.loaders = dict(loaders)
        self.start_batch = 0
        self._began = self._generator_states()

    @property
    def sampler(self) -> InterleavedLoaders:
        """Who is told the epoch and the batch to begin with, as of a `DataLoader`: the whole."""
        return self

    @property
    def num_workers(self) -> int:
        """Processes that cut batches."""
        return sum(getattr(loader, "num_workers", 0) for loader in self.loaders.values())

    def set_epoch(self, epoch: int) -> None:
        """Tell all loaders' samplers which pass comes next."""
        for loader in self.loaders.values():
            set_epoch(loader, epoch)

    def order(self) -> list[str]:
        """Whose batch comes when, in one pass."""
        places = [
            ((2 * j + 1) / (2 * len(loader)), rank, name)
            for rank, (name, loader) in enumerate(self.loaders.items())
            for j in range(len(loader))
        ]
        return [name for _, _, name in sorted(places)]

    def __len__(self) -> int:
        """Batches in a whole pass."""
        return sum(map(len, self.loaders.values()))

    def __iter__(self) -> Iterator[_Named]:
        start, self.start_batch = self.start_batch, 0
        if start:
            self._set_generators(self._began)
        else:
            self._began = self._generator_states()
        order = self.order()
        parts = {name: _iter_from(loader, order[:start].count(name)) for name, loader in self.loaders.items()}
        return _take(order[start:], parts)

    def state_dict(self, within_pass: bool) -> list[list[Tensor]]:
        """States of the loaders' own generators: those in which the pass began, or those of now."""
        return self._began if within_pass else self._generator_states()

    def load_state_dict(self, state: list[list[Tensor]]) -> None:
        """Take back what `state_dict` gave."""
        self._began = state
        self._set_generators(state)

    def _generator_states(self) -> list[list[Tensor]]:
        return [get_random_state(loader)["loader"] for loader in self.loaders.values()]

    def _set_generators(self, states: list[list[Tensor]]) -> None:
        for loader, state in zip(self.loaders.values(), states, strict=True):
            set_random_state(get_random_state() | {"loader": state}, loader)


def _iter_from(loader: Any, start: int) -> Iterator[Any]:
    """A loader's batches from a given one on; the first is fetched at once, so that the loader has made its draws."""
    sampler = getattr(loader, "sampler", None)
    if sampler is not None and hasattr(sampler, "start_batch"):
        sampler.start_batch, start = start, 0
    batches = iter(loader)
    return chain(list(islice(batches, start, start + 1)), batches)


def _take(order: Sequence[str], parts: Mapping[str, Iterator[Any]]) -> Iterator[_Named]:
    for name in order:
        try:
            yield _Named(name, next(parts[name]))
        except StopIteration:
            raise ValueError(f"the loader {name!r} yielded fewer batches than its length") from None


class MultiTFRTrainer(SpectrogramTrainer):
    """A `SpectrogramTrainer` with a loader for each of several representations.

    In an epoch every loader is gone through once, batches taking turns as `InterleavedLoaders` says; each batch is of
    one representation and counts as one micro-batch of gradient accumulation. A loader yields maps `[B, C, F, T']`, or
    signals for a `MultiTFR`, which makes the maps of the representation that has the loader's name. A network that is
    no `MultiTFR` gets all maps alike.

    Weights are divided by their mean, once, and multiply the losses of their batches in training: equal weights are 1
    and change nothing, and one loader trains as `SpectrogramTrainer` would, to the bit. A loader with more samples
    takes more steps, and so counts for more in an epoch's gradient; its weight is for the user to lower.

    Metrics, in training and validation alike: `{name}_loss` and `{name}_accuracy` are means over the samples of a
    loader, without weights; `loss` and `accuracy` are their means over the loaders by weight, whatever the loaders'
    lengths. They do not measure the common opinion of a `MultiTFR`, which `evaluation.predict` asks for.

    Args:
        model: see `SpectrogramTrainer`.
        train_loaders: by name, each with a length.
        val_loaders: by the same names; None or empty leaves validation out.
        tfr_weights: by the same names, > 0; None is equal ones.
        **kwargs: whatever else `SpectrogramTrainer` takes.

    Raises:
        TypeError: loaders or weights that are not by name; a loader without a length; a keyword that nobody takes.
        ValueError: no or empty loaders; names that differ; a weight out of range.

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
                raise TypeError(f"{what} is a {type(named).__name__}, expected a mapping by name, e.g. {{'stft': ...}}")
        weights = dict.fromkeys(train_loaders, 1.0) if tfr_weights is None else dict(tfr_weights)
        for what, named in (("val_loaders", val_loaders or train_loaders), ("tfr_weights", weights)):
            if set(named) != set(train_loaders):
                raise ValueError(f"{what} are for {sorted(named)}, and train_loaders for {sorted(train_loaders)}")
        for name, weight in weights.items():
            if not _is_finite(weight) or weight <= 0:
                raise ValueError(f"the weight of {name!r} is {weight!r}, expected a number > 0")
        val_loader = InterleavedLoaders(val_loaders) if val_loaders else None
        super().__init__(model, InterleavedLoaders(train_loaders), val_loader, **kwargs)
        total = sum(weights.values())
        self.tfr_weights = {name: weights[name] / total for name in train_loaders}
        self._factors = {name: weights[name] * len(weights) / total for name in train_loaders}
        self._name = ""
        made = self.representation
        if isinstance(made, dict) and not set(train_loaders) <= set(made):
            raise ValueError(f"loaders are for {sorted(train_loaders)}, but the network's maps are {sorted(made)}")

    def prepare_batch(self, batch: Any) -> Batch:
        self._name, batch = batch
        return super().prepare_batch(batch)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of maps, by the network of the representation whose loader they come from."""
        if isinstance(self.representation, dict):
            return self.model(batch.signals, metadata=batch.metadata, representation=self._name)
        return call_model(self.model, batch)

    def step(self, batch: Any) -> StepResult:
        result = super().step(batch)
        result.components[f"{self._name}_loss"] = result.loss.detach()
        if result.correct is not None:
            result.components[f"{self._name}_accuracy"] = result.correct / result.count
        result.loss = result.loss * self._factors[self._name]
        return result

    def train_epoch(self) -> dict[str, float]:
        """One pass over each training loader.

        Returns:
            `loss`, `accuracy` and `masked_share`, and `{name}_loss` and `{name}_accuracy` of each loader.
        """
        return self._over_loaders(super().train_epoch())

    def validate_epoch(self) -> dict[str, float]:
        """One pass over each validation loader; the weights of the network stay.

        Returns:
            `loss` and `accuracy`, and `{name}_loss` and `{name}_accuracy` of each loader.
        """
        return self._over_loaders(super().validate_epoch())

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return state | {"loaders": self.train_loader.state_dict(within_pass=state["tally"] is not None)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.train_loader.load_state_dict(state["loaders"])

    def _representation_of_batch(self) -> TimeFrequency | None:
        found = self.representation
        return found[self._name] if isinstance(found, dict) else found

    def _over_loaders(self, means: dict[str, float]) -> dict[str, float]:
        """Means over loaders in place of means over samples; an interrupted epoch may lack some loaders."""
        for metric in ("loss", "accuracy"):
            parts = {n: means[f"{n}_{metric}"] for n in self.tfr_weights if f"{n}_{metric}" in means}
            if parts:
                total = sum(self.tfr_weights[name] * value for name, value in parts.items())
                means[metric] = total / sum(self.tfr_weights[name] for name in parts)
        return means


def load_representation(checkpoint_path: str | Path) -> Representations | None:
    """What made the maps of a network, from the checkpoint of its `SpectrogramTrainer` or `MultiTFRTrainer`.

    Returns:
        The representation, or several by name; None where the loaders yielded maps.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, or no checkpoint of such a trainer.
    """
    state, _ = load_training(checkpoint_path)
    if "representation" not in state:
        raise ValueError(f"{checkpoint_path}: holds no representation; it is of another trainer")
    config = state["representation"]
    if config is None or "kind" in config:
        return None if config is None else TimeFrequency(**config)
    return {name: TimeFrequency(**part) for name, part in config.items()}


def mask_params(n_frequencies: int, n_times: int) -> dict[str, int]:
    """Widths of masks for maps of any size, in the proportion that the defaults have to 128 by 256.

    Returns:
        `freq_mask_param` and `time_mask_param`, 5/32 of the axis each: two masks on each axis then cover 28 % of a map
        on average.

    Example:
        >>> mask_params(128, 256), mask_params(64, 64)
        ({'freq_mask_param': 20, 'time_mask_param': 40}, {'freq_mask_param': 10, 'time_mask_param': 10})
    """
    return {"freq_mask_param": round(n_frequencies * 5 / 32), "time_mask_param": round(n_times * 5 / 32)}


def unwrap_model(model: nn.Module) -> nn.Module:
    """The network inside a parallel wrapper."""
    return getattr(model, "module", model)


def _config(representation: Representations | None) -> dict[str, Any] | None:
    if isinstance(representation, dict):
        return {name: part.config for name, part in representation.items()}
    return None if representation is None else representation.config


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
