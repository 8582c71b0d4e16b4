"""Averages of the weights over training, which are validated and kept in place of the last weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whirl.callbacks.helpers import OptimizerSteps, has_completed
from whirl.engine.callbacks import Callback, Logs
from whirl.engine.wrappers import load_weights_into, weights_of
from whirl.validation import check_count, check_number


class WeightAveraging(Callback):
    """Base class: validates with averaged weights, and puts them into the network when training is complete.

    Training itself continues with the network's own weights. `last.pt` holds both, so that a resumed training gives the
    same bits; `whirl.engine.load_weights` loads the averaged ones from it and from `best.pt`. Floating-point buffers,
    such as the running statistics of batch normalization, are averaged too; integers are copied.

    Args:
        apply_at_end: put the averaged weights into the network when training is complete, not when it is interrupted.

    Attributes:
        weights: averaged state dict; None before the first average.
        n_averaged: number of states averaged so far.
    """

    def __init__(self, apply_at_end: bool = True) -> None:
        self.apply_at_end = apply_at_end
        self.weights: dict[str, Tensor] | None = None
        self.n_averaged = 0
        self._own: dict[str, Tensor] = {}
        self._live: dict[str, Tensor] = {}

    def share(self) -> float:
        """Return the weight of the next state in the average, in [0, 1]."""
        raise NotImplementedError

    def update(self) -> None:
        """Take the current weights into the average."""
        live = self._live or weights_of(self.trainer.model)
        if self.weights is None:
            self.weights = {name: value.detach().clone() for name, value in live.items()}
        else:
            _lerp(self.weights, live, self.share())
        self.n_averaged += 1

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._live = weights_of(self.trainer.model)  # shares memory with the network
        if self.weights is not None:  # loaded on the CPU
            self.weights = {name: value.to(self._live[name].device) for name, value in self.weights.items()}

    def on_validation_begin(self, logs: Logs | None = None) -> None:
        if self.weights is not None:
            self._own = {name: value.clone() for name, value in weights_of(self.trainer.model).items()}
            load_weights_into(self.trainer.model, self.weights)

    def on_validation_end(self, logs: Logs | None = None) -> None:
        if self._own:
            load_weights_into(self.trainer.model, self._own)
            self._own = {}

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.apply_at_end and self.weights is not None and has_completed(self.trainer):
            load_weights_into(self.trainer.model, self.weights)

    def state_dict(self) -> Logs:
        return {"weights": self.weights, "n_averaged": self.n_averaged}

    def load_state_dict(self, state: Logs) -> None:
        self.weights, self.n_averaged = state["weights"], state["n_averaged"]


def _lerp(averages: dict[str, Tensor], live: dict[str, Tensor], share: float) -> None:
    """Move the averages towards the live weights by `share` of the difference, in place."""
    floats = [name for name, value in averages.items() if value.is_floating_point()]
    torch._foreach_lerp_([averages[name] for name in floats], [live[name] for name in floats], share)
    for name in averages.keys() - set(floats):
        averages[name].copy_(live[name])


class EMA(WeightAveraging):
    """Exponential moving average of the weights, updated after every optimizer step.

    average <- d · average + (1 - d) · weights, with d = min(decay, (1 + n) / (10 + n)) after n updates, so that the
    initial weights are soon forgotten (Polyak & Juditsky 1992; the warmup is that of TensorFlow).

    Args:
        decay: limit of d, in (0, 1); the average covers about 1 / (1 - decay) steps.
        apply_at_end: see `WeightAveraging`, also for what is saved and resumed.

    Raises:
        ValueError: `decay` is outside (0, 1).

    Example:
        >>> from whirl.training import Trainer
        >>> batch = (torch.randn(16, 1, 4), torch.arange(16) % 2)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> average = EMA(decay=0.99)
        >>> history = Trainer(model, [batch], [batch], device="cpu", callbacks=[average]).fit(5)
        >>> average.n_averaged, torch.equal(model[1].weight, average.weights["1.weight"])
        (5, True)
    """

    def __init__(self, decay: float = 0.999, apply_at_end: bool = True) -> None:
        super().__init__(apply_at_end)
        self.decay = check_number("decay", decay, 0, 1, open_ends=True)
        self._steps = OptimizerSteps()

    def share(self) -> float:
        return 1 - min(self.decay, (1 + self.n_averaged) / (10 + self.n_averaged))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._steps.begin(self.trainer)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        for _ in range(self._steps.since_last_batch(self.trainer)):
            self.update()

    def on_validation_begin(self, logs: Logs | None = None) -> None:
        self.on_batch_end(-1)  # the step of an unfinished accumulation window
        super().on_validation_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.on_batch_end(-1)  # without validation

    def state_dict(self) -> Logs:
        return super().state_dict() | {"steps_seen": self._steps.seen}

    def load_state_dict(self, state: Logs) -> None:
        super().load_state_dict(state)
        self._steps.seen = state["steps_seen"]


class SWA(WeightAveraging):
    """Stochastic weight averaging: the mean of the weights at the ends of epochs (Izmailov et al. 2018).

    Use a learning rate that stays high in the averaged epochs. Before the first average the network is validated with
    its own weights.

    Args:
        start_epoch: first epoch whose weights are averaged, from 0.
        apply_at_end: see `WeightAveraging`, also for what is saved and resumed.

    Raises:
        ValueError: `start_epoch` is negative.

    Example:
        >>> from whirl.training import Trainer
        >>> batch = (torch.randn(16, 1, 4), torch.arange(16) % 2)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> average = SWA(start_epoch=3)
        >>> history = Trainer(model, [batch], [batch], device="cpu", callbacks=[average]).fit(5)
        >>> average.n_averaged
        2
    """

    def __init__(self, start_epoch: int, apply_at_end: bool = True) -> None:
        super().__init__(apply_at_end)
        self.start_epoch = check_count("start_epoch", start_epoch, 0)
        self._epoch = -1  # the last one averaged

    def share(self) -> float:
        return 1 / (self.n_averaged + 1)

    def on_validation_begin(self, logs: Logs | None = None) -> None:
        if self.trainer.replay.tally is None:  # not within an epoch
            self._average_epoch(self.trainer.state.epoch)
        super().on_validation_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._average_epoch(epoch)  # without validation

    def _average_epoch(self, epoch: int) -> None:
        if epoch >= self.start_epoch and epoch != self._epoch:
            self.update()
            self._epoch = epoch

    def state_dict(self) -> Logs:
        return super().state_dict() | {"epoch": self._epoch}

    def load_state_dict(self, state: Logs) -> None:
        super().load_state_dict(state)
        self._epoch = state["epoch"]


def evaluated_callback(callbacks: Any) -> str | None:
    """Return the name of the callback whose weights are validated in place of the network's; None if there is none."""
    names = [name for name, part in callbacks.named() if isinstance(part, WeightAveraging) and part.weights is not None]
    return names[-1] if names else None
