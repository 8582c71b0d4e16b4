"""Gradual unfreezing of a pretrained network."""

from __future__ import annotations

from torch import nn

from whirl.engine.callbacks import Callback, Logs
from whirl.engine.fine_tuning import is_frozen, layers_of, set_frozen
from whirl.validation import check_count


class GradualUnfreezing(Callback):
    """Let one more frozen layer train every few epochs, from the logits towards the input (Howard & Ruder 2018).

    Freeze the layers with `whirl.engine.freeze` first. The optimizer must hold their parameters from the start: while
    they are frozen they have no gradient, so no optimizer step changes them.

    Args:
        every: epochs from one layer to the next.

    Raises:
        ValueError: `every` is below 1.

    Example:
        >>> import torch
        >>> from whirl.engine import freeze
        >>> from whirl.training import Trainer
        >>> batch = (torch.randn(16, 1, 8), torch.arange(16) % 2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> freeze(model, "features")
        >>> history = Trainer(model, [batch], device="cpu", callbacks=[GradualUnfreezing(every=2)]).fit(3)
        >>> model[1].weight.requires_grad
        True
    """

    def __init__(self, every: int = 1) -> None:
        self.every = check_count("every", every)
        self._layers: list[list[nn.Module]] | None = None  # frozen at first, from the input to the logits

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self._layers is None:
            self._layers = [layer for layer in layers_of(self.trainer.model) if any(map(is_frozen, layer))]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        layers = self._layers or []
        for layer in layers[max(0, len(layers) - epoch // self.every) :]:
            for module in layer:
                set_frozen(module, False)
            self.trainer.modes.release(layer)
