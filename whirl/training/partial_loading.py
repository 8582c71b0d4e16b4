"""Loading of a checkpoint into a trainer with other parts, as far as it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from whirl.engine.checkpoint import check_kinds
from whirl.engine.wrappers import load_weights_into

_MISFITS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def load_what_fits(trainer: Any, state: dict[str, Any]) -> list[str]:
    """Load the weights of the network, and every other part that fits the trainer.

    Returns:
        The parts that were not taken over, each with the reason.

    Raises:
        RuntimeError: the weights belong to another network.
    """
    load_weights_into(trainer.model, state["model"])
    loaders: dict[str, Callable[[], Any]] = {
        "criterion": lambda: trainer._load_criterion(state),
        "optimizer": lambda: trainer.optimizer.load_state_dict(state["optimizer"]),
        "scheduler": lambda: _load_scheduler(trainer, state),
        "precision": lambda: trainer.precision.load_state_dict(state["precision"]),
        "progress": lambda: trainer._load_progress(state),
    }
    found = [(part, _attempt(part, load, trainer, state)) for part, load in loaders.items()]
    members = dict(trainer.callbacks.named())
    found += [(name, _attempt_callback(members.get(name), saved)) for name, saved in state["callbacks"].items()]
    found += [(name, "belongs to another kind of trainer") for name in sorted(state.keys() - trainer.state_dict())]
    return [f"{part} ({reason})" for part, reason in found if reason]


def _load_scheduler(trainer: Any, state: dict[str, Any]) -> None:
    if trainer.lr_scheduler is not None:
        trainer.lr_scheduler.load_state_dict(state["scheduler"])


def _attempt(part: str, load: Callable[[], Any], trainer: Any, state: dict[str, Any]) -> str:
    """Load a part; return why it does not fit, or ""."""
    kinds = trainer._all_kinds()
    try:
        if part in kinds:
            check_kinds(state["kinds"], {part: kinds[part]})
        load()
    except _MISFITS as error:
        return " ".join(str(error).split())
    return ""


def _attempt_callback(callback: Any, saved: Any) -> str:
    if callback is None:
        return "no such callback"
    try:
        callback.load_state_dict(saved)
    except _MISFITS as error:
        return " ".join(str(error).split())
    return ""
