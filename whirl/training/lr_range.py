"""Learning-rate range test: the loss of a short training whose learning rate grows from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from whirl.engine.checkpoint import to_cpu
from whirl.engine.loop import StepResult, run_epoch
from whirl.training.trainer import Trainer
from whirl.validation import check_count, check_number

_DIVERGED = 4.0  # times the lowest smoothed loss
_SMOOTHING = 0.9


@dataclass(frozen=True)
class LearningRateRange:
    """The result of a learning-rate range test.

    Attributes:
        learning_rates: learning rate of each step.
        losses: smoothed training loss of each step.

    `suggestion` is a tenth of the learning rate with the lowest loss; the peak of a one-cycle schedule may be higher.
    """

    learning_rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """Learning rate to start from."""
        lowest = min(range(len(self.losses)), key=self.losses.__getitem__)
        return self.learning_rates[lowest] / 10

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss against the learning rate; return the axes."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        ax.semilogx(self.learning_rates, self.losses)
        ax.axvline(self.suggestion, linestyle=":", label=f"suggestion {self.suggestion:.2g}")
        ax.set(xlabel="learning rate", ylabel="smoothed training loss")
        ax.legend()
        return ax


def find_learning_rate(
    trainer: Trainer, *, low: float = 1e-6, high: float = 1.0, n_steps: int = 100
) -> LearningRateRange:
    """Find a learning rate by a range test (Smith 2017).

    Trains with a learning rate that grows geometrically from `low` to `high`, until the loss diverges. Weights,
    optimizer, random states and position are as before afterwards; callbacks are not called and nothing is saved.

    Args:
        trainer: the trainer; groups with other learning rates keep their ratios.
        low: learning rate of the first step, > 0.
        high: learning rate of the last step, > `low`.
        n_steps: optimizer steps, >= 2; the data are repeated if necessary.

    Raises:
        ValueError: a number is out of range, the trainer is in the middle of an epoch, its data end before the last
            step and cannot be repeated, or the first loss is not finite.

    Example:
        >>> import torch
        >>> signals, targets = torch.randn(64, 1, 8), torch.arange(64) % 2
        >>> signals[targets == 1] += 1
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> found = find_learning_rate(Trainer(model, [(signals, targets)], device="cpu"))
        >>> 1e-3 < found.suggestion < 1
        True
    """
    check_number("low", low, 0, open_ends=True)
    check_number("high", high, low, open_ends=True)
    check_count("n_steps", n_steps, 2)
    if trainer.replay.tally is not None:
        raise ValueError("the trainer is in the middle of an epoch: find the learning rate before or after training")
    before, after_step = to_cpu(trainer.state_dict()), trainer.updater.on_step
    test = _RangeTest(trainer, [low * (high / low) ** (step / (n_steps - 1)) for step in range(n_steps)])
    trainer.updater.on_step = None
    try:
        with trainer.epoch_context():
            trainer.modes.train(trainer.model)
            run_epoch(_repeated(trainer), test.step, trainer.updater, should_stop=test.is_finished)
    finally:
        trainer.updater.on_step = after_step
        trainer.optimizer.zero_grad()
        trainer.load_state_dict(before)
        trainer.replay.keep_random_state()
    if not test.losses:
        raise ValueError("the loss of the first step is not finite: check the data and the network")
    return LearningRateRange(test.learning_rates[: len(test.losses)], test.losses)


class _RangeTest:
    """Sets the learning rate of each step, and records the losses."""

    def __init__(self, trainer: Trainer, learning_rates: list[float]) -> None:
        self.trainer = trainer
        self.learning_rates = learning_rates
        self.losses: list[float] = []
        rates = [float(group["lr"]) for group in trainer.optimizer.param_groups]
        self._ratios = [rate / (max(rates) or 1) for rate in rates]
        self._of_step: list[float] = []
        self._mean = 0.0
        self._set_learning_rate()

    def step(self, batch: Any) -> StepResult:
        result = self.trainer.step(batch)
        self._of_step.append(result.loss.item())
        return result

    def is_finished(self) -> bool:
        """Record the loss of a step; return whether it was the last one."""
        loss, self._of_step = sum(self._of_step) / len(self._of_step), []
        if not math.isfinite(loss):
            return True
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        self.losses.append(self._mean / (1 - _SMOOTHING ** (len(self.losses) + 1)))
        if len(self.losses) == len(self.learning_rates) or self.losses[-1] > _DIVERGED * min(self.losses):
            return True
        self._set_learning_rate()
        return False

    def _set_learning_rate(self) -> None:
        for group, ratio in zip(self.trainer.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = ratio * self.learning_rates[len(self.losses)]


def _repeated(trainer: Trainer) -> Iterator[Any]:
    while True:
        batch = None
        for batch in trainer.batches(trainer.train_loader):
            yield batch
        if batch is None:
            raise ValueError("train_loader yielded no batch: it is empty, or an iterator that can be used only once")
