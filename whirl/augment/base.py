"""Base class and composition of augmentations, and their application to batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import default_collate

from whirl.augment.label_mixing import as_distributions
from whirl.engine.batch import Batch, as_batch
from whirl.validation import check_number

Function = Callable[..., tuple[Tensor, Tensor]]


class Augmentation:
    """Base class of random transformations of a batch; subclasses override `augment`.

    Called with signals, an augmentation returns signals; called with signals and labels, it returns both.

    Example:
        >>> class Amplify(Augmentation):
        ...     def augment(self, batch, generator=None):
        ...         return batch._replace(signals=2 * batch.signals)
        >>> Amplify()(torch.ones(1, 1, 3))
        tensor([[[2., 2., 2.]]])
    """

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Return the augmented batch, without modifying the input.

        Args:
            batch: signals float `[B, C, T]`, targets, and metadata, which may contain `rpm`.
            generator: random generator on the device of the signals. None means torch's global generator.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs; empty for augmentations that remember nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    @overload
    def __call__(self, signals: Tensor, labels: None = None, *, generator: torch.Generator | None = None) -> Tensor: ...
    @overload
    def __call__(
        self, signals: Tensor, labels: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]: ...
    def __call__(self, signals: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None):
        """Augment signals `[B, C, T]` and, if given, their labels: class indices `[B]` or class weights `[B, K]`."""
        targets = torch.zeros(len(signals), dtype=torch.int64, device=signals.device) if labels is None else labels
        batch = self.augment(Batch(signals, targets, {}), generator)
        if labels is not None:
            return batch.signals, batch.targets
        if batch.targets is not targets:
            raise ValueError(f"{self!r} mixes labels; call it with signals and labels")
        return batch.signals


class Compose(Augmentation):
    """Applies several augmentations in sequence.

    Args:
        augmentations: `Augmentation` objects, or functions `(signals, labels) -> (signals, labels)`.

    Raises:
        TypeError: an element is neither of them.

    Example:
        >>> double = lambda signals, labels: (2 * signals, labels)
        >>> Compose([double, double])(torch.ones(1, 1, 2))
        tensor([[[4., 4.]]])
    """

    def __init__(self, augmentations: Sequence[Augmentation | Function]) -> None:
        self.augmentations = [as_augmentation(a) for a in augmentations]

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        for augmentation in self.augmentations:
            batch = augmentation.augment(batch, generator)
        return batch

    def state_dict(self) -> dict[str, Any]:
        states = {str(index): part.state_dict() for index, part in enumerate(self.augmentations)}
        return {index: state for index, state in states.items() if state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for index, part in state.items():
            self.augmentations[int(index)].load_state_dict(part)

    def __repr__(self) -> str:
        return f"Compose({self.augmentations})"


class RandomApply(Augmentation):
    """Applies an augmentation to each sample with a given probability, independently of the other samples.

    Args:
        augmentation: an `Augmentation`, or a function `(signals, labels) -> (signals, labels)`.
        probability: probability of augmenting a sample, in [0, 1].

    Raises:
        ValueError: the probability is outside [0, 1].

    Example:
        >>> flip = RandomApply(lambda signals, labels: (-signals, labels), probability=0.5)
        >>> flip(torch.ones(5, 1, 1), generator=torch.Generator().manual_seed(0)).flatten()
        tensor([-1.,  1., -1., -1., -1.])
    """

    def __init__(self, augmentation: Augmentation | Function, probability: float = 0.5) -> None:
        probability = check_number("probability", probability, 0, 1)
        self.augmentation = as_augmentation(augmentation)
        self.probability = probability

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        if self.probability == 0:
            return batch
        augmented = self.augmentation.augment(batch, generator)
        if self.probability == 1:
            return augmented
        signals = batch.signals
        chosen = torch.rand(len(signals), device=signals.device, generator=generator) < self.probability
        targets = augmented.targets
        if targets is not batch.targets:
            original = as_distributions(batch.targets, targets.shape[1], targets.dtype)
            targets = torch.where(chosen[:, None], targets, original)
        return Batch(
            torch.where(chosen.view(-1, *[1] * (signals.ndim - 1)), augmented.signals, signals),
            targets,
            {name: _choose(chosen, value, batch.metadata[name]) for name, value in augmented.metadata.items()},
        )

    def state_dict(self) -> dict[str, Any]:
        return self.augmentation.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.augmentation.load_state_dict(state)

    def __repr__(self) -> str:
        return f"RandomApply({self.augmentation!r}, {self.probability})"


class RandomChoice(Compose):
    """Applies one of several augmentations to each batch, drawn with given probabilities.

    Use it to choose between augmentations that mix samples, e.g. mixup for half of the batches and CutMix for the
    others; `Compose([])` among them leaves a batch unchanged.

    Args:
        augmentations: `Augmentation` objects, or functions `(signals, labels) -> (signals, labels)`, at least one.
        probabilities: probability of each, >= 0; they are divided by their sum. None means equal probabilities.

    Raises:
        TypeError: an element is neither of them.
        ValueError: there are no augmentations, or the probabilities do not match them.

    Example:
        >>> negate, double = lambda s, y: (-s, y), lambda s, y: (2 * s, y)
        >>> choose = RandomChoice([negate, double], probabilities=[0.2, 0.8])
        >>> sorted({choose(torch.ones(1, 1, 1)).item() for _ in range(80)})
        [-1.0, 2.0]
    """

    def __init__(
        self, augmentations: Sequence[Augmentation | Function], probabilities: Sequence[float] | None = None
    ) -> None:
        super().__init__(augmentations)
        if not self.augmentations:
            raise ValueError("augmentations are empty, expected at least one")
        given = [1.0] * len(self.augmentations) if probabilities is None else list(probabilities)
        if len(given) != len(self.augmentations):
            raise ValueError(f"there are {len(given)} probabilities for {len(self.augmentations)} augmentations")
        given = [check_number(f"probabilities[{i}]", p, 0) for i, p in enumerate(given)]
        if not sum(given):
            raise ValueError(f"probabilities are {given}, expected a sum > 0")
        self.probabilities = [p / sum(given) for p in given]

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        return self.augmentations[draw_index(self.probabilities, generator)].augment(batch, generator)

    def __repr__(self) -> str:
        return f"RandomChoice({self.augmentations}, {self.probabilities})"


def draw_index(probabilities: Sequence[float], generator: torch.Generator | None = None) -> int:
    """Draw an index with given probabilities.

    Without a generator it is drawn on the host, where it is needed: this avoids a synchronization.

    Example:
        >>> draw_index([0.0, 1.0])
        1
    """
    device = "cpu" if generator is None else generator.device
    return int(torch.multinomial(torch.tensor(probabilities, device=device), 1, generator=generator))


class PerChannel(Augmentation):
    """Applies an augmentation to every channel with draws of its own; by default all channels share their draws.

    Use it for what is independent in each sensor, such as masks and noise levels. Shifts of single channels change the
    phases between sensors, from which orbits and mode shapes follow.

    Args:
        augmentation: an `Augmentation`, or a function `(signals, labels) -> (signals, labels)`, which neither mixes
            samples nor changes metadata such as the shaft speed.

    Raises:
        TypeError: it is neither of them; in use, it mixes labels or changes metadata (`ValueError`).

    Example:
        >>> flip = PerChannel(RandomApply(lambda signals, labels: (-signals, labels), 0.5))
        >>> flip(torch.ones(1, 5, 1), generator=torch.Generator().manual_seed(0)).flatten()
        tensor([-1.,  1., -1., -1., -1.])
    """

    def __init__(self, augmentation: Augmentation | Function) -> None:
        self.augmentation = as_augmentation(augmentation)

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        n_channels = batch.signals.shape[1]
        rows = Batch(
            batch.signals.flatten(0, 1).unsqueeze(1),
            batch.targets.repeat_interleave(n_channels, 0),
            {name: _repeated(value, n_channels) for name, value in batch.metadata.items()},
        )
        augmented = self.augmentation.augment(rows, generator)
        is_changed = any(augmented.metadata[name] is not value for name, value in rows.metadata.items())
        if augmented.targets is not rows.targets or is_changed:
            raise ValueError(f"{self.augmentation!r} mixes samples or changes metadata, which all channels share")
        return batch._replace(signals=augmented.signals.view(batch.signals.shape))

    def state_dict(self) -> dict[str, Any]:
        return self.augmentation.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.augmentation.load_state_dict(state)

    def __repr__(self) -> str:
        return f"PerChannel({self.augmentation!r})"


def _repeated(value: Any, n: int) -> Any:
    return value.repeat_interleave(n, 0) if isinstance(value, Tensor) and value.ndim else value


def _choose(chosen: Tensor, augmented: Any, original: Any) -> Any:
    return original if augmented is original else torch.where(chosen, augmented, original)


class _FromFunction(Augmentation):
    """Adapter from a function of signals and labels to an augmentation."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._takes_generator = "generator" in inspect.signature(function).parameters

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        keywords = {"generator": generator} if self._takes_generator else {}
        signals, targets = self.function(batch.signals, batch.targets, **keywords)
        return Batch(signals, targets, batch.metadata)

    def state_dict(self) -> dict[str, Any]:
        return self.function.state_dict() if hasattr(self.function, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.function.load_state_dict(state)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def as_augmentation(augmentation: Augmentation | Function) -> Augmentation:
    """Wrap a function `(signals, labels) -> (signals, labels)`; an `Augmentation` is returned unchanged.

    Raises:
        TypeError: the argument is not callable.

    Example:
        >>> as_augmentation(lambda signals, labels: (-signals, labels))(torch.ones(1, 1, 2))
        tensor([[[-1., -1.]]])
    """
    if isinstance(augmentation, Augmentation):
        return augmentation
    if not callable(augmentation):
        raise TypeError(
            f"augmentation is {augmentation!r}, expected an Augmentation or a function "
            "(signals, labels) -> (signals, labels)"
        )
    return _FromFunction(augmentation)


class AugmentedCollate:
    """A `collate_fn` that augments batches of a `DataLoader`, in its worker processes if there are any.

    It accepts a list of samples, and also a complete batch from a dataset that returns batches. Each worker draws from
    its own random state, which is seeded by the loader.

    Args:
        augmentation: an `Augmentation`, or a function `(signals, labels) -> (signals, labels)`.
        collate: function that creates a batch from a list of samples.

    Example:
        >>> data = [(torch.ones(1, 4), 0), (torch.ones(1, 4), 1)]
        >>> halve = AugmentedCollate(lambda signals, labels: (signals / 2, labels))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=2, collate_fn=halve)
        >>> signals, labels, metadata = next(iter(loader))
        >>> signals.mean(), labels
        (tensor(0.5000), tensor([0, 1]))
    """

    def __init__(
        self, augmentation: Augmentation | Function, collate: Callable[[list[Any]], Any] = default_collate
    ) -> None:
        self.augmentation = as_augmentation(augmentation)
        self.collate = collate

    def __call__(self, samples: Any) -> Batch:
        """Return the augmented batch of a list of samples, or of a complete batch."""
        batch = self.collate(samples) if isinstance(samples, list) else samples
        return self.augmentation.augment(as_batch(batch, torch.device("cpu"), float_targets=True))
