"""Keep the weights of the best epoch in memory."""

from __future__ import annotations

import torch

from whirl.engine.callbacks import Callback, Logs
from whirl.engine.monitor import Improvement
from whirl.engine.wrappers import load_weights_into, weights_of


class BestWeights(Callback):
    """Keep a copy of the network's weights from the epoch with the best monitored value.

    Training itself ends with the weights of the last epoch, so that it can be continued; `restore` puts the best ones
    in place. Epochs without the monitored name are ignored.

    Args:
        monitor: name in the epoch logs.
        mode: `'min'` if lower is better, `'max'` if higher is better.
        model: network to watch; None uses the trainer's.

    Attributes:
        improvement: the best value so far.
        weights: state dict of the network, or None before the first epoch with a value.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> best = BestWeights(model=model)
        >>> for epoch, loss in enumerate([0.5, 0.2, 0.9]):
        ...     _ = torch.nn.init.constant_(model.weight, epoch)
        ...     best.on_epoch_end(epoch, {"val_loss": loss})
        >>> best.restore()
        True
        >>> model.weight.item(), best.improvement.best
        (1.0, 0.2)
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "min", *, model: torch.nn.Module | None = None) -> None:
        self.improvement = Improvement(monitor, mode)
        self.model = model
        self.weights: dict[str, torch.Tensor] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs and self.improvement.monitor in logs and self.improvement.update(logs):
            self.weights = {name: value.detach().clone() for name, value in weights_of(self._model()).items()}

    def restore(self) -> bool:
        """Load the best weights into the network; return False, and change nothing, if there are none."""
        if self.weights is None:
            return False
        load_weights_into(self._model(), self.weights)
        return True

    def _model(self) -> torch.nn.Module:
        return self.trainer.model if self.model is None else self.model

    def state_dict(self) -> Logs:
        return {"improvement": self.improvement.state_dict(), "weights": self.weights}

    def load_state_dict(self, state: Logs) -> None:
        self.improvement.load_state_dict(state["improvement"])
        self.weights = state["weights"]
