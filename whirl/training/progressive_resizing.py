"""Training on short signals first, on longer ones later."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from whirl.data.loaders import make_loader
from whirl.data.windows import WindowDataset
from whirl.dsp.resizing import resize
from whirl.engine.distributed import rank, world_size
from whirl.engine.schedule import scheduler_unit
from whirl.engine.state import TrainingState
from whirl.training.trainer import History, Trainer
from whirl.validation import check_count, check_name

DEFAULT_SCHEDULE = ((25600, 20), (51200, 15), (76800, 10), (102400, 5))
"""(length in samples, epochs) of each stage, for recordings of 5 s at 20480 Hz."""

CACHE_BYTES = 2**30
"""Most memory that the resized signals of a stage may take to be kept from one epoch to the next."""

METHODS = ("interpolate", "truncate", "pad", "crop")

_TENSOR_INDEXED = (WindowDataset, TensorDataset)  # give a batch for a tensor of indices, and always the same one
_CHUNK = 64  # signals resized at once when all of them are


class ResizableSignalDataset(Dataset[Any]):
    """A data set whose signals are brought to one length.

    `"interpolate"` changes the sampling rate and keeps the duration: what lies below the lower Nyquist frequency stays,
    what lies above is gone, and a tone keeps its cycles per signal but not its frequency per sample
    (`signals.resize.resize`). `"truncate"` keeps the first samples, `"crop"` a stretch that begins anywhere, another
    one each time, `"pad"` adds zeros behind the last; these keep the sampling rate.

    Samples keep the form that the base gives them: `(signal, target)`, `(signal, target, metadata)` or a mapping with
    `signal`; metadata stay as they are, so a `"start"` counts samples of the base. An index tensor, list or slice gives
    a batch, which is resized as one: one gather of a `WindowDataset` or `TensorDataset`, item by item of any other.
    `make_loader` and a plain `DataLoader` both take it.

    Args:
        base_dataset: gives signals `[C, T]` or `[T]`.
        target_length: samples L of every signal, >= 1; may be changed between two epochs.
        resize_method: `"interpolate"`, `"truncate"`, `"pad"` or `"crop"`, which draws from torch's global generator.

    Raises:
        ValueError: a length below 1 or an unknown method; on reading a sample, a signal that is too short to truncate
            or crop or too long to pad, with both lengths.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 8 * torch.arange(256) / 256)
        >>> base = TensorDataset(tone.expand(10, 1, -1), torch.zeros(10, dtype=torch.int64))
        >>> shorter = ResizableSignalDataset(base, target_length=64)
        >>> signals, targets = shorter[torch.tensor([3, 5])]
        >>> tuple(signals.shape), bool(torch.allclose(signals[0, 0], tone[::4], atol=1e-4))
        ((2, 1, 64), True)
        >>> ResizableSignalDataset(base, 512, "truncate")[0]
        Traceback (most recent call last):
        ValueError: cannot truncate signals of 256 samples to 512: choose 256 or less, or 'pad' or 'interpolate'
    """

    def __init__(self, base_dataset: Dataset[Any], target_length: int, resize_method: str = "interpolate") -> None:
        check_name("resize method", resize_method, METHODS)
        self.base_dataset = base_dataset
        self.resize_method = resize_method
        # A tensor, so that the workers of a loader can be made to see it change.
        self._target_length = torch.tensor(check_count("target_length", target_length))
        self._kept: tuple[int, Any] | None = None

    @property
    def target_length(self) -> int:
        """Samples L of every signal."""
        return int(self._target_length)

    @target_length.setter
    def target_length(self, target_length: int) -> None:
        self._target_length.fill_(check_count("target_length", target_length))
        if self._kept is not None and self._kept[0] != target_length:
            self._kept = None

    @property
    def base_length(self) -> int:
        """Samples T of the base's signals; of its first one, where they differ."""
        if isinstance(self.base_dataset, WindowDataset):
            return self.base_dataset.window
        return _signal(self.base_dataset[0]).shape[-1]

    @property
    def sampling_rate_hz(self) -> float | None:
        """Of the resized signals; None where the base does not say its own `sampling_rate_hz`."""
        base_hz = getattr(self.base_dataset, "sampling_rate_hz", None)
        if base_hz is None or self.resize_method != "interpolate":
            return base_hz
        return base_hz * self.target_length / self.base_length

    def share_length(self) -> None:
        """Let loader workers that start from now on follow every change of `target_length`."""
        self._target_length.share_memory_()

    def cache(self) -> None:
        """Resize all signals now and remember them, `[N, C, L]` in memory, until the length changes.

        For a base that gives the same samples in every epoch; `WindowDataset` and `TensorDataset` do.

        Raises:
            TypeError: another base, of which nobody knows.
        """
        if not isinstance(self.base_dataset, _TENSOR_INDEXED):
            raise TypeError(f"{type(self.base_dataset).__name__} may give other samples in every epoch: cannot keep")
        if self._kept is None:
            chunks = [self._batch(indices) for indices in torch.arange(len(self)).split(_CHUNK)]
            self._kept = self.target_length, _joined(chunks)

    def __len__(self) -> int:
        return len(self.base_dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Any:
        if isinstance(index, slice):
            index = range(len(self))[index]
        if isinstance(index, (Tensor, Sequence)):
            return self._batch(torch.as_tensor(index))
        return self._resized(self.base_dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples of a batch one by one, as a plain `DataLoader` wants them; resized together."""
        items = self._items(indices)
        signals = [_signal(item) for item in items]
        if len({signal.shape for signal in signals}) > 1:
            return [self._resized(item) for item in items]
        together = self._resize(torch.stack(signals))
        return [_with_signal(item, signal) for item, signal in zip(items, together.unbind(), strict=True)]

    def _items(self, indices: Sequence[int]) -> list[Any]:
        fetch = getattr(self.base_dataset, "__getitems__", None)
        return [self.base_dataset[index] for index in indices] if fetch is None else fetch(indices)

    def _batch(self, indices: Tensor) -> Any:
        if self._kept is not None and self._kept[0] == self.target_length:
            return _selected(self._kept[1], indices)
        if isinstance(self.base_dataset, _TENSOR_INDEXED):
            return self._resized(cast(Any, self.base_dataset)[indices])
        return default_collate(self.__getitems__(indices.tolist()))

    def _resized(self, sample: Any) -> Any:
        """One sample, or a batch of the same form, with its signals resized."""
        return _with_signal(sample, self._resize(_signal(sample)))

    def _resize(self, signals: Tensor) -> Tensor:
        n_samples, n_wanted = signals.shape[-1], self.target_length
        if self.resize_method == "interpolate":
            return resize(signals, n_wanted)
        if self.resize_method == "truncate":
            if n_samples < n_wanted:
                raise ValueError(_length_error("truncate", n_samples, n_wanted, "less, or 'pad'"))
            return signals[..., :n_wanted].contiguous()
        if self.resize_method == "crop":
            return _cropped(signals, n_wanted)
        if n_samples > n_wanted:
            raise ValueError(_length_error("pad", n_samples, n_wanted, "more, or 'truncate'"))
        return F.pad(signals, (0, n_wanted - n_samples))


@dataclass
class ProgressiveState(TrainingState):
    """Progress of a training in stages.

    Attributes:
        stage: the running stage, counted from 0.
        length: samples in its signals.
    """

    stage: int = 0
    length: int = 0

    def record(self, logs: dict[str, float]) -> bool:
        """As `TrainingState`, with `stage` and `length` among the logs."""
        logs.update(stage=self.stage, length=self.length)
        return super().record(logs)


class ProgressiveResizingTrainer(Trainer):
    """Trains on short signals first, on longer ones later.

    A stage is a length and a number of epochs. All stages share one network, optimizer, order of batches, pool of
    workers and learning-rate schedule, and each epoch goes through all signals, so a schedule counts the steps of
    `num_epochs` like epochs; the logs say the `stage` and the `length` of each.

    What early stages may see depends on `resize_method`. Shortened by `"interpolate"`, signals keep their duration and
    lose their high frequencies, and with them what tells classes apart there (impacts that ring at a resonance); a
    tone of 100 Hz is another number of radians per sample in every stage. `"truncate"` and `"crop"` keep the sampling
    rate and lose duration; a crop is another one in every epoch, so nothing of the signals stays unseen.

    With `"crop"`, validation is at full length throughout, and all epochs are comparable. Otherwise validation resizes
    like training. Its loss is therefore comparable within a stage, not from one to the next, and at
    every stage's beginning the best so far is forgotten: `best.pt` holds the best epoch of the last stage begun. (At
    full length, the weights of an early `"interpolate"` stage would mean nothing: their filters fit another sampling
    rate.) Callbacks and plateau schedules that compare epochs should know that the loss jumps where a stage begins.

    Batch normalisation keeps its running statistics from stage to stage. What they remember of earlier lengths fades by
    its momentum with every batch, 0.9 per batch by default: below 1 % after 44 batches, which the last stage should
    have.

    Where `num_workers` is 0 and the base is a `WindowDataset` or `TensorDataset`, all signals are resized once for each
    stage and kept, if they take less than `CACHE_BYTES`; otherwise they are resized with every batch, by the workers
    where there are any.

    Args:
        model: takes signals of every length in the schedule, `[B, C, T]` to logits `[B, K]`.
        optimizer: see `Trainer`.
        criterion: see `Trainer`.
        device: see `Trainer`.
        schedule: `(length in samples, epochs)` of each stage; None is (25600, 20), (51200, 15), (76800, 10),
            (102400, 5).
        resize_method: `"interpolate"`, `"truncate"`, `"pad"` or `"crop"`, as of `ResizableSignalDataset`. Crops need
            `num_workers` 0, for they draw from torch's global generator, whose state a checkpoint keeps.
        **options: further keyword arguments of `Trainer`: `callbacks`, `checkpoint_dir`, `augmentation`, ...

    Attributes:
        schedule: the stages.
        num_epochs: epochs of all stages.

    Raises:
        ValueError: a schedule without stages, or with a length or number of epochs that is not an integer >= 1.

    Example:
        >>> signals, targets = torch.randn(32, 1, 256), torch.arange(32) % 2
        >>> signals[targets == 1] += 3
        >>> data = TensorDataset(signals, targets)
        >>> model = nn.Sequential(nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(4, 2))
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
        >>> trainer = ProgressiveResizingTrainer(model, optimizer, nn.CrossEntropyLoss(), schedule=[(64, 2), (256, 2)])
        >>> history = trainer.train_progressive(data, data, batch_size=8)
        >>> history["length"], history["val_accuracy"][-1]
        ([64, 64, 256, 256], 1.0)
    """

    state: ProgressiveState

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        criterion: nn.Module | Callable[..., Tensor] | None,
        device: str | torch.device = "cpu",
        schedule: Sequence[tuple[int, int]] | None = None,
        *,
        resize_method: str = "interpolate",
        **options: Any,
    ) -> None:
        check_name("resize method", resize_method, METHODS)
        self.schedule = check_schedule(DEFAULT_SCHEDULE if schedule is None else schedule)
        self.resize_method = resize_method
        self._loaders: tuple[DataLoader[Any], ...] = ()
        super().__init__(model, (), None, optimizer, criterion, device, **options)

    @property
    def num_epochs(self) -> int:
        """Epochs of all stages."""
        return sum(epochs for _, epochs in self.schedule)

    def new_state(self) -> ProgressiveState:
        return ProgressiveState()

    def train_progressive(
        self,
        base_train_dataset: Dataset[Any],
        base_val_dataset: Dataset[Any] | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        scheduler: Any = None,
        *,
        seed: int = 0,
        resume_from: str | Path | None = None,
    ) -> History:
        """Train through the stages, or through what is left of them.

        Args:
            base_train_dataset: see `set_data`, as for the next three.
            base_val_dataset: data to validate on.
            batch_size: signals in a batch.
            num_workers: processes that read and resize.
            scheduler: learning-rate schedule over all stages; instead of the constructor's `lr_scheduler`.
            seed: of the order of the signals, >= 0.
            resume_from: a checkpoint of an interrupted run, which is finished.

        Returns:
            The history: one list per logged name, one number an epoch; `stage` and `length` among them.

        Raises:
            ValueError: data that do not fit (see `set_data`), a checkpoint that does not, two schedulers, or all stages
                are finished already.
        """
        if scheduler is not None:
            self._set_scheduler(scheduler)
        if resume_from is None and self.state.epoch >= self.num_epochs:
            raise ValueError(f"all {self.num_epochs} epochs of the schedule are finished; `fit` trains on at its end")
        self.set_data(base_train_dataset, base_val_dataset, batch_size, num_workers, seed=seed)
        return self.fit(self.num_epochs - (0 if resume_from else self.state.epoch), resume_from)

    def set_data(
        self,
        base_train_dataset: Dataset[Any],
        base_val_dataset: Dataset[Any] | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        *,
        seed: int = 0,
    ) -> None:
        """Choose the data, and try the network at every length; `fit(num_epochs)` can then train.

        A last batch of a single signal is left out: batch normalisation cannot learn from it.

        Args:
            base_train_dataset: signals `[C, T]` or `[T]` with targets, in any form that `ResizableSignalDataset` takes.
            base_val_dataset: the same for validation; None leaves it out.
            batch_size: signals in a batch, >= 1.
            num_workers: processes that read and resize; 0 does so in this one.
            seed: of the order of the signals, >= 0.

        Raises:
            TypeError: a loader, or anything else that is no data set.
            ValueError: an empty data set; a length that the signals cannot be brought to, or the network cannot take; a
                network or loss that relies on a sampling rate which a stage would change.
        """
        if self.resize_method == "crop" and num_workers:
            raise ValueError(f"num_workers is {num_workers}, expected 0: workers' crops could not be resumed exactly")
        check_count("batch_size", batch_size)
        bases = [base_train_dataset] if base_val_dataset is None else [base_train_dataset, base_val_dataset]
        for base in bases:
            if not hasattr(base, "__getitem__"):
                raise TypeError(f"the data are a {type(base).__name__}, expected a data set of signals, not a loader")
            if not len(base):  # type: ignore[arg-type]
                raise ValueError("a data set is empty, expected at least one signal")
        datasets = [ResizableSignalDataset(base, self.schedule[0][0], self.resize_method) for base in bases]
        if self.resize_method == "crop":
            datasets[1:] = [ResizableSignalDataset(d.base_dataset, d.base_length, "truncate") for d in datasets[1:]]
        self._check_rate(datasets[0].base_length)
        for length in sorted({length for length, _ in self.schedule}):
            for dataset in datasets:
                if dataset.resize_method == self.resize_method:
                    self._check_forward(dataset, length)
        if num_workers:
            for dataset in datasets:
                dataset.share_length()
        n_train = len(datasets[0])
        drop_last = n_train > batch_size and n_train % batch_size == 1
        options: dict[str, Any] = {"seed": seed, "num_workers": num_workers}
        options |= {"shard": rank(), "n_shards": world_size()}
        drop_last = drop_last and world_size() == 1
        train_loader = _loader(datasets[0], batch_size, shuffle=True, drop_last=drop_last, **options)
        self._loaders = (train_loader, *(_loader(dataset, batch_size, **options) for dataset in datasets[1:]))
        self.train_loader, self.val_loader = (*self._loaders, None)[:2]

    def train_epoch(self, train_loader: Iterable[Any] | None = None, epoch: int | None = None) -> dict[str, float]:
        """One pass over the training data.

        Args:
            train_loader: what to train on, its signals as long as they are; None is the running stage's own.
            epoch: chooses the order where the loader's sampler has `set_epoch`.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.
        """
        if train_loader is None:
            self._enter_stage()
        else:
            self.train_loader = train_loader
        if epoch is not None:
            self._passes = epoch
        return super().train_epoch()

    def evaluate(self, val_loader: Iterable[Any]) -> dict[str, float]:
        """One pass over `val_loader`, its signals as long as they are; the weights stay.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.
        """
        own, self.val_loader = self.val_loader, val_loader
        try:
            return self.validate_epoch()
        finally:
            self.val_loader = own

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"stages": self._stages()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["stages"] != self._stages():
            raise ValueError(f"its stages are {state['stages']}, here they are {self._stages()}")
        super().load_state_dict(state)

    def _stages(self) -> dict[str, Any]:
        return {"resize_method": self.resize_method, "schedule": [list(stage) for stage in self.schedule]}

    def _set_scheduler(self, scheduler: Any) -> None:
        if self.lr_scheduler is not None and self.lr_scheduler is not scheduler:
            raise ValueError("train_progressive got a scheduler, but the trainer has an lr_scheduler already")
        self.lr_scheduler, self._schedule_unit = scheduler, scheduler_unit(scheduler)

    def _enter_stage(self) -> None:
        """Bring the data to the length of the running epoch, where they have another."""
        if not self._loaders:
            raise ValueError("there is nothing to train on: call train_progressive, or set_data before fit")
        ends = list(accumulate(epochs for _, epochs in self.schedule))
        stage = sum(end <= self.state.epoch for end in ends[:-1])
        self.state.stage, self.state.length = stage, self.schedule[stage][0]
        if self.state.epoch in (0, *ends[:-1]) and self.resize_method != "crop":
            self.state.best_val_loss = torch.inf
        self.train_loader = self._loaders[0]  # `train_epoch` may have been given another
        for loader in self._loaders:
            dataset = cast(ResizableSignalDataset, loader.dataset)
            if dataset.resize_method != self.resize_method:
                continue
            dataset.target_length = self.state.length
            if loader.num_workers == 0 and _is_worth_keeping(dataset):
                dataset.cache()

    def _check_rate(self, base_length: int) -> None:
        lengths = [length for length, _ in self.schedule]
        if max(lengths) > base_length:
            warnings.warn(
                f"stages of {max(lengths)} samples are longer than the signals, {base_length}: they cost more and "
                "show nothing new",
                stacklevel=4,
            )
        if self.resize_method != "interpolate" or {*lengths} == {base_length}:
            return
        parts = [part for part in (self.model, self.criterion) if isinstance(part, nn.Module)]
        bound = next((module for part in parts for module in part.modules() if _uses_sampling_rate(module)), None)
        if bound is not None:
            raise ValueError(
                f"{type(bound).__name__} relies on the sampling rate, which stages of {lengths} samples change: "
                f"train at {base_length} samples throughout, or choose resize_method 'truncate'"
            )

    def _check_forward(self, dataset: ResizableSignalDataset, length: int) -> None:
        """Refuse a length that the signals or the network cannot have."""
        dataset.target_length = length
        with torch.random.fork_rng():
            batch = dataset[:2]
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng(), torch.no_grad(), self.precision.context():
                self.forward(self.prepare_batch(batch))
        except Exception as error:
            name = type(self.model).__name__
            raise ValueError(f"{name} cannot take signals of {length} samples, a stage's length: {error}") from error
        finally:
            self.model.train(was_training)


def parse_schedule(text: str) -> tuple[tuple[int, int], ...]:
    """Stages as they are written on a command line.

    Args:
        text: `length:epochs` of each stage, joined by commas.

    Raises:
        ValueError: it is written in another way, or a number is below 1.

    Example:
        >>> parse_schedule("512:5,1024:5,2048:10")
        ((512, 5), (1024, 5), (2048, 10))
    """
    try:
        stages = [(int(length), int(epochs)) for length, epochs in (stage.split(":") for stage in text.split(","))]
    except ValueError:
        raise ValueError(f"stages are {text!r}, expected length:epochs,..., e.g. 512:5,1024:5,2048:10") from None
    return check_schedule(stages)


def check_schedule(schedule: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Stages as pairs of plain integers.

    Args:
        schedule: length in samples and number of epochs of each stage, all >= 1.

    Raises:
        ValueError: there is no stage, one is no pair, or a number is below 1 or not whole.

    Example:
        >>> check_schedule([(512, 0)])
        Traceback (most recent call last):
        ValueError: epochs of stage 0 is 0, expected an integer >= 1
    """
    if (
        not isinstance(schedule, Sequence)
        or not schedule
        or any(not isinstance(stage, Sequence) or len(stage) != 2 for stage in schedule)
    ):
        raise ValueError(f"schedule is {schedule!r}, expected pairs of (length in samples, epochs), at least one")
    return tuple(
        (check_count(f"length of stage {place}", length), check_count(f"epochs of stage {place}", epochs))
        for place, (length, epochs) in enumerate(schedule)
    )


def _loader(dataset: ResizableSignalDataset, batch_size: int, **options: Any) -> DataLoader[Any]:
    return make_loader(dataset, batch_size, **options)


def _is_worth_keeping(dataset: ResizableSignalDataset) -> bool:
    if not isinstance(dataset.base_dataset, _TENSOR_INDEXED) or dataset.target_length == dataset.base_length:
        return False
    if dataset.resize_method == "crop":
        return False
    return len(dataset) * _signal(dataset[0]).nbytes <= CACHE_BYTES


def _uses_sampling_rate(module: nn.Module) -> bool:
    """Whether the module, or an object that it holds, was told the sampling rate."""
    holders, names = (module, *vars(module).values()), ("sampling_rate_hz", "sample_rate")
    return any(getattr(holder, name, None) is not None for holder in holders for name in names)


def _cropped(signals: Tensor, n_wanted: int) -> Tensor:
    """A stretch of each signal `[..., C, T]`, its beginning uniform among those possible."""
    n_samples = signals.shape[-1]
    if n_samples < n_wanted:
        raise ValueError(_length_error("crop", n_samples, n_wanted, "less, or 'pad'"))
    if n_samples == n_wanted:
        return signals
    starts = torch.randint(n_samples - n_wanted + 1, (*signals.shape[:-2], 1, 1))
    return signals.gather(-1, (starts + torch.arange(n_wanted)).expand(*signals.shape[:-1], n_wanted))


def _length_error(method: str, n_samples: int, n_wanted: int, hint: str) -> str:
    ways_out = f"choose {n_samples} or {hint} or 'interpolate'"
    return f"cannot {method} signals of {n_samples} samples to {n_wanted}: {ways_out}"


def _signal(sample: Any) -> Tensor:
    return torch.as_tensor(sample["signal"] if isinstance(sample, Mapping) else sample[0])


def _with_signal(sample: Any, signal: Tensor) -> Any:
    return {**sample, "signal": signal} if isinstance(sample, Mapping) else (signal, *sample[1:])


def _joined(batches: Sequence[Any]) -> Any:
    """Batches of one form, one behind the other."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(list(batches))
    if isinstance(first, Mapping):
        return {name: _joined([batch[name] for batch in batches]) for name in first}
    return tuple(_joined(part) for part in zip(*batches, strict=True))


def _selected(batch: Any, indices: Tensor) -> Any:
    """The samples at `indices`, in the form of the batch."""
    if isinstance(batch, Tensor):
        return batch.index_select(0, indices)
    if isinstance(batch, Mapping):
        return {name: _selected(part, indices) for name, part in batch.items()}
    return tuple(_selected(part, indices) for part in batch)
