"""Several loaders as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from torch import Tensor

from whirl.engine.random_state import get_random_state, set_random_state
from whirl.engine.replay import set_epoch, start_at


class NamedBatch(NamedTuple):
    """A batch, and the name of the loader that it comes from."""

    name: str
    batch: Any


class InterleavedLoaders:
    """Iterate over several loaders at once, each of them once per epoch, with their batches interleaved.

    Batch j of a loader with n batches has the position (j + 1/2) / n within the epoch, so a loader with twice as many
    batches comes twice as often, and all end together. At equal positions the loader that is named first comes first.
    The order depends on the lengths only.

    Training resumes exactly, also in the middle of an epoch: the generators of all loaders are saved, and everything
    that a loader draws from torch's global generator when it starts is drawn before the first batch is returned.

    Args:
        loaders: by name; each has a length and starts anew whenever it is iterated over.

    Raises:
        TypeError: a loader has no length.
        ValueError: there is no loader, or one has no batch.

    Example:
        >>> [name for name, _ in InterleavedLoaders({"a": [1, 2, 3, 4], "b": [5, 6]})]
        ['a', 'b', 'a', 'a', 'b', 'a']
    """

    def __init__(self, loaders: Mapping[str, Any]) -> None:
        if not loaders:
            raise ValueError("there is no loader, expected at least one by name")
        for name, loader in loaders.items():
            if not hasattr(loader, "__len__"):
                raise TypeError(f"the loader {name!r} has no length, which is needed to interleave its batches")
            if len(loader) == 0:
                raise ValueError(f"the loader {name!r} has no batch")
        self.loaders = dict(loaders)
        self.start_batch = 0
        self._states_at_start = self._generator_states()

    @property
    def sampler(self) -> InterleavedLoaders:
        """This object: it takes the epoch and the first batch as the sampler of a `DataLoader` does."""
        return self

    @property
    def num_workers(self) -> int:
        """Number of worker processes of all loaders."""
        return sum(getattr(loader, "num_workers", 0) for loader in self.loaders.values())

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next pass on the samplers of all loaders."""
        for loader in self.loaders.values():
            set_epoch(loader, epoch)

    def order(self) -> list[str]:
        """Return the names of the loaders in the order of their batches in one epoch."""
        places = [
            ((2 * j + 1) / (2 * len(loader)), rank, name)
            for rank, (name, loader) in enumerate(self.loaders.items())
            for j in range(len(loader))
        ]
        return [name for _, _, name in sorted(places)]

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return sum(map(len, self.loaders.values()))

    def __iter__(self) -> Iterator[NamedBatch]:
        start, self.start_batch = self.start_batch, 0
        if start:
            self._set_generators(self._states_at_start)
        else:
            self._states_at_start = self._generator_states()
        order = self.order()
        iterators = {name: _iter_from(loader, order[:start].count(name)) for name, loader in self.loaders.items()}
        return _interleave(order[start:], iterators)

    def state_dict(self, within_epoch: bool) -> list[list[Tensor]]:
        """Return the states of the loaders' own generators: those at the start of the epoch, or the current ones."""
        return self._states_at_start if within_epoch else self._generator_states()

    def load_state_dict(self, state: list[list[Tensor]]) -> None:
        """Restore what `state_dict` returned."""
        self._states_at_start = state
        self._set_generators(state)

    def _generator_states(self) -> list[list[Tensor]]:
        return [get_random_state(loader)["loader"] for loader in self.loaders.values()]

    def _set_generators(self, states: list[list[Tensor]]) -> None:
        for loader, state in zip(self.loaders.values(), states, strict=True):
            set_random_state(get_random_state() | {"loader": state}, loader)


def _iter_from(loader: Any, start: int) -> Iterator[Any]:
    """Iterate from a batch on; the first one is fetched immediately, so that the loader makes its random draws."""
    n_to_drop = start_at(loader, start)
    batches = iter(loader)
    return chain(list(islice(batches, n_to_drop, n_to_drop + 1)), batches)


def _interleave(order: Sequence[str], iterators: Mapping[str, Iterator[Any]]) -> Iterator[NamedBatch]:
    for name in order:
        try:
            yield NamedBatch(name, next(iterators[name]))
        except StopIteration:
            raise ValueError(f"the loader {name!r} yielded fewer batches than its length") from None
