"""Random states of a process and of a data loader, as data for a checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def get_random_state(loader: Any = None) -> dict[str, Any]:
    """Return the states of the generators of Python, NumPy and torch (with all CUDA devices and MPS) and of `loader`.

    Example:
        >>> state = get_random_state()
        >>> first = torch.rand(1)
        >>> set_random_state(state)
        >>> bool(torch.rand(1) == first)
        True
    """
    algorithm, keys, *rest = np.random.get_state()  # noqa: NPY002 (data sets of users draw from it)
    return {
        "python": random.getstate(),
        "numpy": [algorithm, torch.from_numpy(np.array(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.mps.is_available() else None,
        "loader": [generator.get_state() for generator in _generators(loader)],
    }


def set_random_state(state: dict[str, Any], loader: Any = None) -> None:
    """Restore what `get_random_state` returned, for the same kind of loader.

    On a machine with another number of CUDA devices, or without MPS, the states of those devices are not restored.
    """
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    algorithm, numpy_keys, *rest = state["numpy"]
    np.random.set_state((algorithm, numpy_keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device_state.cpu() for device_state in state["cuda"]])
    if state.get("mps") is not None and torch.mps.is_available():  # not in older checkpoints
        torch.mps.set_rng_state(state["mps"].cpu())
    for generator, saved in zip(_generators(loader), state["loader"], strict=True):
        generator.set_state(saved.cpu())


def _generators(loader: Any) -> list[torch.Generator]:
    """Return the generators that determine the order of a `DataLoader`, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
