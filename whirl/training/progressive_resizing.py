"""Progressive resizing: train on short signals first, then on longer ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from whirl.data.loaders import make_loader
from whirl.engine.distributed import rank, world_size
from whirl.engine.modes import eval_mode
from whirl.engine.state import TrainingState
from whirl.training.per_call import PerCallTrainer
from whirl.training.resizable_dataset import METHODS, signal_of
from whirl.training.resizable_dataset import ResizableSignalDataset as ResizableSignalDataset
from whirl.training.trainer import History
from whirl.validation import check_count, check_name

DEFAULT_SCHEDULE = ((25600, 20), (51200, 15), (76800, 10), (102400, 5))
"""(length in samples, epochs) of each stage, for recordings of 5 s at 20480 Hz."""

CACHE_BYTES = 2**30
"""Maximum memory of the resized signals of a stage to be cached between epochs."""


@dataclass
class ProgressiveState(TrainingState):
    """Progress of a training run in stages.

    Attributes:
        stage: the running stage, counted from 0.
        length: samples of its signals.
    """

    stage: int = 0
    length: int = 0

    def record(self, logs: dict[str, float]) -> bool:
        """Append the logs of an epoch to the history, see `TrainingState`, with `stage` and `length`."""
        logs.update(stage=self.stage, length=self.length)
        return super().record(logs)


class ProgressiveResizingTrainer(PerCallTrainer):
    """Train on short signals first, then on longer ones.

    A stage is a length and a number of epochs. All stages share one network, optimizer, order of batches, pool of
    workers and learning-rate schedule, and each epoch uses all signals, so a schedule counts the steps of `num_epochs`
    epochs of equal size. The logs hold the `stage` and the `length` of each epoch.

    `resize_method` determines what early stages can learn. `"interpolate"` keeps the duration and removes high
    frequencies, and with them features that distinguish classes there (impacts that excite a resonance); a tone of
    100 Hz has another number of radians per sample in every stage. `"truncate"` and `"crop"` keep the sampling rate and
    shorten the duration; `"crop"` takes another section in every epoch, so every part of a signal is used.

    With `"crop"`, validation always uses the full length, and all epochs are comparable. With the other methods
    validation resizes like training, so its loss is comparable within a stage but not between stages, and the best loss
    is reset at the start of each stage: `best.pt` holds the best epoch of the last stage started. (Evaluated at full
    length, the weights of an early `"interpolate"` stage would be meaningless, as their filters fit another sampling
    rate.) Callbacks and plateau schedules that compare epochs should expect a jump of the loss where a stage starts.

    Batch normalization keeps its running statistics between stages. The contribution of earlier lengths decays with its
    momentum, by a factor of 0.9 per batch by default: below 1 % after 44 batches, so the last stage should have at
    least as many.

    If `num_workers` is 0 and the base is a `WindowDataset` or `TensorDataset`, all signals are resized once per stage
    and cached, if they take less than `CACHE_BYTES`; otherwise they are resized with every batch, in the workers if
    there are any.

    Args:
        model: accepts signals of every length in the schedule, `[B, C, T]` to logits `[B, K]`.
        optimizer: see `Trainer`.
        criterion: see `Trainer`.
        device: see `Trainer`.
        schedule: `(length in samples, epochs)` of each stage; None is (25600, 20), (51200, 15), (76800, 10),
            (102400, 5).
        resize_method: `"interpolate"`, `"truncate"`, `"pad"` or `"crop"`, see `ResizableSignalDataset`. `"crop"` needs
            `num_workers=0`, because it draws from torch's global generator, whose state a checkpoint keeps.
        **options: further keyword arguments of `Trainer`: `callbacks`, `checkpoint_dir`, `augmentation`, ...

    Attributes:
        schedule: the stages.
        num_epochs: epochs of all stages.

    Raises:
        ValueError: the schedule has no stage, or a length or number of epochs is not an integer >= 1.

    Example:
        >>> signals, targets = torch.randn(32, 1, 256), torch.arange(32) % 2
        >>> signals[targets == 1] += 3
        >>> data = torch.utils.data.TensorDataset(signals, targets)
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
        """Train through all stages, or through the remaining ones.

        Args:
            base_train_dataset: see `set_data`, as for the next three.
            base_val_dataset: validation data.
            batch_size: signals per batch.
            num_workers: worker processes that read and resize.
            scheduler: learning-rate schedule over all stages, if the trainer has no `lr_scheduler`.
            seed: seed for the order of the signals, >= 0.
            resume_from: checkpoint of an interrupted run, which is continued to its end.

        Returns:
            The history: one list per logged name, one number per epoch; `stage` and `length` among them.

        Raises:
            ValueError: the data are invalid (see `set_data`), the checkpoint does not fit, there are two schedulers, or
                all stages are finished already.
        """
        self.use_scheduler(scheduler)
        if resume_from is None and self.state.epoch >= self.num_epochs:
            raise ValueError(
                f"all {self.num_epochs} epochs of the schedule are finished: call fit() to continue at the final length"
            )
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
        weights: Tensor | None = None,
    ) -> None:
        """Set the data and check that the network accepts every length; `fit(num_epochs)` can then train.

        A last batch with a single signal is dropped, as batch normalization cannot be trained on it.

        Args:
            base_train_dataset: signals `[C, T]` or `[T]` with targets, in any form that `ResizableSignalDataset`
                accepts.
            base_val_dataset: the same for validation; None disables validation.
            batch_size: signals per batch, >= 1.
            num_workers: worker processes that read and resize; 0 does so in this process.
            seed: seed for the order of the signals, >= 0.
            weights: weight of each training signal in an epoch, see `whirl.data.BatchSampler`.

        Raises:
            TypeError: the data are a loader or anything else that is not a data set.
            ValueError: a data set is empty; the signals cannot be resized to a length, or the network does not accept
                it; the network or the loss depends on a sampling rate that a stage would change.
        """
        if self.resize_method == "crop" and num_workers:
            raise ValueError(f"num_workers is {num_workers}, expected 0: crops of workers could not be resumed exactly")
        check_count("batch_size", batch_size)
        datasets = self._resizable(base_train_dataset, base_val_dataset)
        self._check_sampling_rate(datasets[0].base_length)
        for length in sorted({length for length, _ in self.schedule}):
            for dataset in datasets:
                if dataset.resize_method == self.resize_method:
                    self._check_forward(dataset, length)
        if num_workers:
            for dataset in datasets:
                dataset.share_length()
        n_train = len(datasets[0])
        drop_last = n_train > batch_size and n_train % batch_size == 1 and world_size() == 1
        options: dict[str, Any] = {"seed": seed, "num_workers": num_workers, "shard": rank(), "n_shards": world_size()}
        train_loader = _loader(datasets[0], batch_size, shuffle=True, drop_last=drop_last, weights=weights, **options)
        self._loaders = (train_loader, *(_loader(dataset, batch_size, **options) for dataset in datasets[1:]))
        self.train_loader, self.val_loader = (*self._loaders, None)[:2]

    def _resizable(self, train: Dataset[Any], val: Dataset[Any] | None) -> list[ResizableSignalDataset]:
        """Return the training data and, if any, the validation data, resized."""
        bases = [train] if val is None else [train, val]
        for base in bases:
            if not hasattr(base, "__getitem__"):
                raise TypeError(f"the data are a {type(base).__name__}, expected a data set of signals, not a loader")
            if not len(base):  # type: ignore[arg-type]
                raise ValueError("a data set is empty, expected at least one signal")
        datasets = [ResizableSignalDataset(base, self.schedule[0][0], self.resize_method) for base in bases]
        if self.resize_method == "crop":
            datasets[1:] = [ResizableSignalDataset(d.base_dataset, d.base_length, "truncate") for d in datasets[1:]]
        return datasets

    def train_epoch(self, train_loader: Iterable[Any] | None = None, epoch: int | None = None) -> dict[str, float]:
        """Train on all batches once.

        Args:
            train_loader: what to train on, without resizing; None is the loader of the running stage.
            epoch: index of this pass over the data, from 0, for samplers that shuffle by it; None continues counting.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction) and any component of the loss.
        """
        return super().train_epoch(self._enter_stage() if train_loader is None else train_loader, epoch)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"stages": self._stages()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["stages"] != self._stages():
            raise ValueError(f"its stages are {state['stages']}, expected {self._stages()}")
        super().load_state_dict(state)

    def _stages(self) -> dict[str, Any]:
        return {"resize_method": self.resize_method, "schedule": [list(stage) for stage in self.schedule]}

    def _enter_stage(self) -> DataLoader[Any]:
        """Set the data to the length of the running epoch's stage and return the training loader."""
        if not self._loaders:
            raise ValueError("there are no training data: call train_progressive, or set_data before fit")
        ends = list(accumulate(epochs for _, epochs in self.schedule))
        stage = sum(end <= self.state.epoch for end in ends[:-1])
        self.state.stage, self.state.length = stage, self.schedule[stage][0]
        if self.state.epoch in (0, *ends[:-1]) and self.resize_method != "crop":
            self.state.best_val_loss = torch.inf
            if self._best_by is not None:
                self._best_by.reset()
        for loader in self._loaders:
            dataset = cast(ResizableSignalDataset, loader.dataset)
            if dataset.resize_method != self.resize_method:
                continue
            dataset.target_length = self.state.length
            if loader.num_workers == 0 and _is_worth_caching(dataset):
                dataset.cache()
        return self._loaders[0]

    def _check_sampling_rate(self, base_length: int) -> None:
        """Raise if a module depends on a sampling rate that stages change; warn of stages longer than the signals."""
        lengths = [length for length, _ in self.schedule]
        if max(lengths) > base_length:
            warnings.warn(
                f"stages of {max(lengths)} samples are longer than the signals, {base_length}: they cost more and "
                "add no information",
                stacklevel=4,
            )
        if self.resize_method != "interpolate" or {*lengths} == {base_length}:
            return
        parts = [part for part in (self.model, self.criterion) if isinstance(part, nn.Module)]
        found = next((module for part in parts for module in part.modules() if _uses_sampling_rate(module)), None)
        if found is not None:
            raise ValueError(
                f"{type(found).__name__} depends on the sampling rate, which stages of {lengths} samples change: "
                f"train at {base_length} samples throughout, or choose resize_method 'truncate'"
            )

    def _check_forward(self, dataset: ResizableSignalDataset, length: int) -> None:
        """Raise if the signals cannot be resized to a length, or the network does not accept it."""
        dataset.target_length = length
        with torch.random.fork_rng():
            batch = dataset[:2]
        try:
            with eval_mode(self.model), torch.random.fork_rng(), torch.no_grad(), self.precision.context():
                self.forward(self.prepare_batch(batch))
        except Exception as error:
            name = type(self.model).__name__
            raise ValueError(f"{name} cannot take signals of {length} samples, a stage's length: {error}") from error


def parse_schedule(text: str) -> tuple[tuple[int, int], ...]:
    """Parse the stages of a command-line argument.

    Args:
        text: `length:epochs` of each stage, separated by commas.

    Raises:
        ValueError: the text has another form, or a number is below 1.

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
    """Validate stages and return them as pairs of Python integers.

    Args:
        schedule: length in samples and number of epochs of each stage, all >= 1.

    Raises:
        ValueError: there is no stage, a stage is not a pair, or a number is not an integer >= 1.

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


def _is_worth_caching(dataset: ResizableSignalDataset) -> bool:
    if not dataset.is_cacheable or dataset.resize_method == "crop" or dataset.target_length == dataset.base_length:
        return False
    return len(dataset) * signal_of(dataset[0]).nbytes <= CACHE_BYTES


def _uses_sampling_rate(module: nn.Module) -> bool:
    """Whether the module, or an object among its attributes, has a sampling rate."""
    holders, names = (module, *vars(module).values()), ("sampling_rate_hz", "sample_rate")
    return any(getattr(holder, name, None) is not None for holder in holders for name in names)
