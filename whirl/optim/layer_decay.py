"""Learning rates that decrease from the logits to the input, for fine-tuning."""

from __future__ import annotations

from typing import Any

from torch import nn

from whirl.engine.fine_tuning import layers_of
from whirl.validation import check_number


def get_layer_decay_groups(model: nn.Module, lr: float, layer_decay: float) -> list[dict[str, Any]]:
    """Return one parameter group per layer, with learning rates that decrease towards the input.

    The layer that computes the logits has the learning rate `lr`, each layer before it `layer_decay` times that of the
    next one (Howard & Ruder 2018; Clark et al. 2020): general features near the input change less than those of the
    task. Schedules scale the learning rates of all groups alike.

    Args:
        model: the network; frozen parameters are included, as they may train later.
        lr: learning rate of the last layer, > 0.
        layer_decay: factor in (0, 1]; 1 gives all layers the same learning rate.

    Returns:
        Parameter groups for `create_optimizer`, from the input to the logits.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> network = nn.Sequential(nn.Conv1d(1, 4, 5), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 2))
        >>> [(group["lr"], len(group["params"])) for group in get_layer_decay_groups(network, 0.1, 0.5)]
        [(0.05, 4), (0.1, 2)]
    """
    lr = check_number("lr", lr, 0, open_ends=True)
    layer_decay = check_number("layer_decay", layer_decay, 0, 1)
    if not layer_decay:
        raise ValueError("layer_decay is 0, expected a number in (0, 1]")
    seen: set[nn.Parameter] = set()
    layers: list[list[nn.Parameter]] = []
    for modules in layers_of(model):
        own = dict.fromkeys(parameter for module in modules for parameter in module.parameters(recurse=False))
        layers.append([parameter for parameter in own if parameter not in seen])
        seen.update(own)
    layers = [layer for layer in layers if layer]
    return [
        {"params": layer, "lr": lr * layer_decay**depth}
        for depth, layer in zip(range(len(layers) - 1, -1, -1), layers, strict=True)
    ]
