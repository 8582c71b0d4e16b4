"""Fine-tuning: take over the features of a trained network, freeze layers, and train them again later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from whirl.engine.checkpoint import read_weights
from whirl.engine.wrappers import unwrap
from whirl.validation import unknown_name

FEATURES = "features"


def output_layers(model: nn.Module) -> list[nn.Linear]:
    """Return the layers that compute the logits: the last linear layer, and others with as many outputs.

    Example:
        >>> output_layers(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)))
        [Linear(in_features=4, out_features=2, bias=True)]
    """
    layers = [module for module in unwrap(model).modules() if isinstance(module, nn.Linear)]
    return [layer for layer in layers if layer.out_features == layers[-1].out_features]


def layers_of(model: nn.Module) -> list[list[nn.Module]]:
    """Return the modules with parameters or buffers of their own, grouped by layer, from the input to the logits.

    A layer begins with a weight of two or more dimensions, and includes the normalization that follows it.

    Example:
        >>> network = nn.Sequential(nn.Conv1d(1, 4, 5), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 2))
        >>> [[type(module).__name__ for module in layer] for layer in layers_of(network)]
        [['Conv1d', 'BatchNorm1d'], ['Linear']]
    """
    layers: list[list[nn.Module]] = []
    for module in unwrap(model).modules():
        own = list(module.parameters(recurse=False))
        if not layers or any(parameter.ndim >= 2 for parameter in own):
            layers.append([])
        if own or module._buffers:
            layers[-1].append(module)
    return [layer for layer in layers if layer]


def freeze(model: nn.Module, *parts: str) -> None:
    """Exclude parts of a network from training.

    Their parameters require no gradient, and modules with running statistics, such as batch normalization, are put in
    evaluation mode, in which trainers keep them. Dropout stays active.

    Args:
        model: the network.
        *parts: names of modules, e.g. `"pyramid"` or `"encoder.0"`, or `"features"`, which always are all layers but
            those that compute the logits.

    Raises:
        ValueError: there is no such part, or nothing is left to train.

    Example:
        >>> network = nn.Sequential(nn.Conv1d(1, 4, 5), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 2))
        >>> freeze(network, "features")
        >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad], network[1].training
        (['3.weight', '3.bias'], False)
    """
    for module in [module for part in parts for module in _modules_of(unwrap(model), part)]:
        set_frozen(module, True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freezing {', '.join(parts)} leaves no parameter of {type(unwrap(model)).__name__} to train")


def set_frozen(module: nn.Module, frozen: bool) -> None:
    """Freeze one module without its children, or let it train again."""
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(not frozen)
    if module._buffers:
        module.training = not frozen


def is_frozen(module: nn.Module) -> bool:
    """Return whether a module has parameters of its own, of which none is trained."""
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


def _modules_of(network: nn.Module, part: str) -> Iterator[nn.Module]:
    modules = dict(network.named_modules())
    if part == FEATURES:
        head = output_layers(network)
        yield from (module for module in modules.values() if module not in head)
    elif part and part in modules:
        yield from modules[part].modules()
    else:
        raise ValueError(unknown_name("part", part, [FEATURES, *dict(network.named_children())]))


def load_features(model: nn.Module, path: str | Path, *, with_head: bool = True) -> list[str]:
    """Load the weights of a trained network into one that may have other classes.

    Args:
        model: network of the same architecture; layers that compute the logits may have another size.
        path: checkpoint of a training run or of a callback.
        with_head: load the layers that compute the logits too, if they have the same size.

    Returns:
        Names of the parameters that keep their initial values.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or the networks differ in other layers.
    """
    network, given = unwrap(model), read_weights(path)
    own = network.state_dict()
    layers = {name for name, module in network.named_modules() if module in output_layers(network)}
    head = {name for name in own if name.rpartition(".")[0] in layers}
    differing = {name for name in {**own, **given} if _shape(name, given) != _shape(name, own)}
    if wrong := sorted(differing - head):
        shapes = f"{wrong[0]} is {_shape(wrong[0], given)}, expected {_shape(wrong[0], own)}"
        raise ValueError(f"{path}: has the weights of another network: {shapes}")
    kept = differing if with_head else head
    network.load_state_dict({name: value for name, value in given.items() if name not in kept}, strict=False)
    return sorted(kept)


def _shape(name: str, weights: Mapping[str, Tensor]) -> str:
    return str(list(weights[name].shape)) if name in weights else "absent"
