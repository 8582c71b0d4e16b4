"""Creation of `torch.optim` optimizers by name, parameter groups for weight decay, and presets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from whirl.validation import check_name, check_number

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]] | nn.Module
"""Parameters, parameter groups, named parameters, or a network."""

_BY_NAME: dict[str, type[Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
}
_UNSUPPORTED = {
    "lbfgs": "it evaluates the loss several times per step through a closure, which the training loop does not pass",
    "sparseadam": "it requires sparse gradients, but networks for signals have dense ones",
}
_NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Batch (also synchronized and lazy), instance, layer, group and RMS normalization of any dimension."""


def optimizer_names() -> list[str]:
    """Return the names that `create_optimizer` accepts, sorted."""
    return sorted(_BY_NAME.keys() - _UNSUPPORTED.keys())


def create_optimizer(
    optimizer_type: str = "adamw",
    model_params: Parameters | None = None,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    **kwargs: Any,
) -> Optimizer:
    """Create an optimizer by name.

    `'adamw'`, `'sgd'` (momentum 0.9, Nesterov) and `'rmsprop'` have the defaults of `create_adamw_optimizer`,
    `create_sgd_optimizer` and `create_rmsprop_optimizer`, except for the learning rate and the weight decay; all other
    names have torch's defaults. Weight decay is decoupled from the gradient in AdamW and Muon; in the others it is
    added to the gradient (L2 penalty), unless their arguments request otherwise. The fastest of torch's implementations
    (fused, foreach or for-loop) is selected, unless `fused` or `foreach` is given.

    Args:
        optimizer_type: name of an optimizer in `torch.optim`, case-insensitive.
        model_params: parameters, parameter groups (whose own settings take precedence; their `lr` may be 0), or a
            network.
        lr: learning rate, > 0.
        weight_decay: weight decay, >= 0.
        **kwargs: further arguments of the torch optimizer. NumPy scalars are converted to Python numbers, since they
            would make the checkpoint require pickle.

    Raises:
        TypeError: `model_params` has an unsupported type, or the optimizer has no such argument.
        ValueError: the name is unknown, the optimizer does not support the training loop, these parameters or these
            values, or there are no parameters.

    Example:
        >>> network = nn.Linear(8, 2)
        >>> optimizer = create_optimizer("sgd", network, lr=0.1)
        >>> optimizer.defaults["momentum"], optimizer.defaults["nesterov"], optimizer.defaults["weight_decay"]
        (0.9, True, 0.0001)
        >>> type(create_optimizer(model_params=network, **OptimizerConfig.default())).__name__
        'AdamW'
    """
    if not isinstance(optimizer_type, str):
        raise TypeError(f"optimizer_type is {_type_of(optimizer_type)}, expected a name such as 'adamw'")
    name = optimizer_type.lower()
    if name in _UNSUPPORTED:
        raise ValueError(f"optimizer {optimizer_type!r} is not supported: {_UNSUPPORTED[name]}")
    check_name("optimizer", name, optimizer_names())
    if model_params is None:
        raise TypeError("model_params is None, expected parameters, parameter groups or a network")
    match name:
        case "adamw":
            return create_adamw_optimizer(model_params, lr, weight_decay, **kwargs)
        case "sgd":
            return create_sgd_optimizer(model_params, lr, weight_decay=weight_decay, **kwargs)
        case "rmsprop":
            return create_rmsprop_optimizer(model_params, lr, weight_decay, **kwargs)
    return _build(_BY_NAME[name], model_params, lr, weight_decay, kwargs)


def create_adamw_optimizer(
    model_params: Parameters,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    **kwargs: Any,
) -> AdamW:
    """Create AdamW: Adam with weight decay decoupled from the gradient (Loshchilov & Hutter 2019).

    Args:
        model_params: parameters, parameter groups, or a network.
        lr: learning rate, > 0.
        weight_decay: decoupled weight decay, >= 0: each step multiplies the weights by 1 - `lr` `weight_decay`.
        betas: decay rates of the running means of the gradient and of its square, each in [0, 1).
        **kwargs: further arguments of `torch.optim.AdamW`.

    Raises:
        TypeError: `model_params` has an unsupported type, or the optimizer has no such argument.
        ValueError: a value is out of range, or there are no parameters.

    Example:
        >>> create_adamw_optimizer(nn.Linear(8, 2), lr=3e-4).defaults["lr"]
        0.0003
    """
    return _build(AdamW, model_params, lr, weight_decay, {"betas": betas, **kwargs})


def create_sgd_optimizer(
    model_params: Parameters,
    lr: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    nesterov: bool = True,
    **kwargs: Any,
) -> SGD:
    """Create stochastic gradient descent with Nesterov momentum (Sutskever et al. 2013).

    Args:
        model_params: parameters, parameter groups, or a network.
        lr: learning rate, > 0.
        momentum: decay rate of the running sum of gradients, in [0, 1). 0 is plain gradient descent, for which
            `nesterov` is ignored.
        weight_decay: L2 penalty, >= 0: `weight_decay` times the weight is added to the gradient.
        nesterov: whether to use Nesterov momentum.
        **kwargs: further arguments of `torch.optim.SGD`.

    Raises:
        TypeError: `model_params` has an unsupported type, or the optimizer has no such argument.
        ValueError: a value is out of range, or there are no parameters.

    Example:
        >>> create_sgd_optimizer(nn.Linear(8, 2)).defaults["nesterov"]
        True
    """
    nesterov = nesterov and momentum != 0  # torch rejects Nesterov momentum of 0
    return _build(SGD, model_params, lr, weight_decay, {"momentum": momentum, "nesterov": nesterov, **kwargs})


def create_rmsprop_optimizer(
    model_params: Parameters, lr: float = 1e-3, weight_decay: float = 1e-5, alpha: float = 0.99, **kwargs: Any
) -> RMSprop:
    """Create RMSprop: the gradient divided by the root of the running mean of its square (Tieleman & Hinton 2012).

    Args:
        model_params: parameters, parameter groups, or a network.
        lr: learning rate, > 0.
        weight_decay: L2 penalty, >= 0: `weight_decay` times the weight is added to the gradient.
        alpha: decay rate of the running mean, in [0, 1).
        **kwargs: further arguments of `torch.optim.RMSprop`.

    Raises:
        TypeError: `model_params` has an unsupported type, or the optimizer has no such argument.
        ValueError: a value is out of range, or there are no parameters.

    Example:
        >>> create_rmsprop_optimizer(nn.Linear(8, 2)).defaults["alpha"]
        0.99
    """
    alpha = _decay_rate("alpha", alpha)  # torch accepts alpha > 1, which makes the mean negative
    return _build(RMSprop, model_params, lr, weight_decay, {"alpha": alpha, **kwargs})


def get_parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    no_decay_keywords: Sequence[str] = ("bias", "norm"),
) -> list[dict[str, Any]]:
    """Split the trainable parameters into two groups: with and without weight decay.

    Weight decay is meant for the weights of linear maps. It is not applied to

    - parameters of torch's normalization layers, regardless of their names;
    - parameters with fewer than two dimensions, such as biases and scales;
    - parameters whose name contains a keyword as a complete word: `norm` matches `blocks.0.post_norm.weight` and
      `norm1`, but not `abnormal_head`.

    All other parameters decay, including the scale `[C, 1, 1]` of a custom normalization layer, unless a keyword
    matches it, and the norms `[out, 1]` of `weight_norm`. A parameter shared by several modules does not decay if this
    holds for any of them. Every trainable parameter is in exactly one group, in the order of the model; frozen
    parameters are in none.

    Args:
        model: network whose parameters are grouped.
        lr: learning rate of both groups, > 0.
        weight_decay: weight decay of the first group, >= 0.
        no_decay_keywords: case-insensitive words that exclude parameters from weight decay. Words are separated by any
            character that is not a letter.

    Returns:
        Parameter groups for `create_optimizer`, the one with weight decay first. Empty groups are omitted.

    Raises:
        TypeError: `no_decay_keywords` is a single string or contains anything but strings, or `model` is not a network.
        ValueError: a value is out of range, a keyword has no letter, or the model has no trainable parameters or
            uninitialized ones (lazy layers).

    Example:
        >>> network = nn.Sequential(nn.Conv1d(1, 8, 5), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> groups = get_parameter_groups(network, lr=1e-3, weight_decay=0.05)
        >>> [(group["weight_decay"], [list(p.shape) for p in group["params"]]) for group in groups]
        [(0.05, [[8, 1, 5], [2, 8]]), (0.0, [[8], [8], [8], [2]])]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {_type_of(model)}, expected a network (nn.Module)")
    if isinstance(no_decay_keywords, str):
        raise TypeError(f"no_decay_keywords is {no_decay_keywords!r}, expected a list of strings")
    lr, weight_decay = _check_lr_and_decay(lr, weight_decay)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(f"{_type_of(model)} has no trainable parameters")
    if any(is_lazy(p) for p in trainable):
        raise ValueError(f"{_type_of(model)} has uninitialized parameters; pass a batch through the network first")
    excluded = _parameters_without_decay(model, [_keyword(keyword) for keyword in no_decay_keywords])
    groups = [
        {"params": [p for p in trainable if p not in excluded], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trainable if p in excluded], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _parameters_without_decay(model: nn.Module, keywords: list[str]) -> set[nn.Parameter]:
    norm_layers = [module for module in model.modules() if isinstance(module, _NORMALIZATIONS)]
    return {p for layer in norm_layers for p in layer.parameters(recurse=False)} | {
        p
        for path, p in model.named_parameters(remove_duplicate=False)
        if p.ndim < 2 or any(keyword in _words(path) for keyword in keywords)
    }


def _words(path: str) -> str:
    """Return the lower-case words of a name, each surrounded by spaces, so that `in` matches complete words."""
    return " " + " ".join(re.findall(r"[^\W\d_]+", path.lower())) + " "


def _keyword(keyword: str) -> str:
    if not isinstance(keyword, str):
        raise TypeError(f"no_decay_keywords contains {keyword!r}, expected strings")
    if not _words(keyword).strip():
        raise ValueError(f"no_decay_keywords contains {keyword!r}, expected a word")
    return _words(keyword)


class OptimizerConfig:
    """Presets of optimizers, for `create_optimizer(model_params=..., **settings)`.

    Every call returns a new dictionary, which can be changed and written to YAML.

    Example:
        >>> settings = OptimizerConfig.sgd_baseline()
        >>> settings["momentum"] = 0.8
        >>> create_optimizer(model_params=nn.Linear(8, 2), **settings).defaults["momentum"]
        0.8
    """

    @staticmethod
    def default() -> dict[str, Any]:
        """Return AdamW with learning rate 1e-3 and little weight decay, a good starting point."""
        return {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 1e-4, "betas": (0.9, 0.999)}

    @staticmethod
    def fast_convergence() -> dict[str, Any]:
        """Return AdamW with learning rate 3e-3 and a faster decay of the second moment, for few epochs.

        Halves the loss of WDCNN after three epochs; has no effect on a transformer.
        """
        return {"optimizer_type": "adamw", "lr": 3e-3, "weight_decay": 1e-4, "betas": (0.9, 0.99)}

    @staticmethod
    def strong_regularization() -> dict[str, Any]:
        """Return AdamW with 500 times the default weight decay, for transformers on small data (Touvron et al.)."""
        return {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.05, "betas": (0.9, 0.999)}

    @staticmethod
    def sgd_baseline() -> dict[str, Any]:
        """Return SGD with Nesterov momentum and learning rate 1e-2, as in most published CNN baselines."""
        return {"optimizer_type": "sgd", "lr": 1e-2, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}


def _build(
    kind: type[Optimizer], model_params: Parameters, lr: float, weight_decay: float, kwargs: dict[str, Any]
) -> Any:
    lr, weight_decay = _check_lr_and_decay(lr, weight_decay)
    accepted = list(inspect.signature(kind).parameters)[1:]
    kwargs = _settings(kind.__name__, kwargs, accepted)
    if "weight_decay" in accepted:
        kwargs = {"weight_decay": weight_decay, **kwargs}
    elif weight_decay:
        raise ValueError(f"{kind.__name__} has no weight decay, but weight_decay is {weight_decay}; set it to 0")
    entries = [
        _settings("a parameter group", entry, [*_GROUP_KEYS, *accepted]) if isinstance(entry, dict) else entry
        for entry in _entries(model_params)
    ]
    tensors = [p for entry in entries for p in _tensors(entry)]
    if not tensors:
        raise ValueError("model_params is empty, expected at least one parameter")
    if kind is torch.optim.Muon and (others := [list(p.shape) for p in tensors if p.ndim != 2]):
        raise ValueError(
            f"Muon supports only matrices, the weights of linear layers, but {len(others)} of {len(tensors)} "
            f"parameters have another shape, the first {others[0]}; use another optimizer, e.g. adamw"
        )
    return kind(entries, lr=lr, **_implementation(kind, tensors, kwargs), **kwargs)  # pyright: ignore[reportCallIssue]


def _check_lr_and_decay(lr: float, weight_decay: float) -> tuple[float, float]:
    return check_number("lr", lr, 0, open_ends=True), check_number("weight_decay", weight_decay, 0)


def _settings(owner: str, settings: dict[str, Any], accepted: Sequence[str]) -> dict[str, Any]:
    """Return the settings of an optimizer or group as Python numbers, with ranges checked where torch does not."""
    unknown = settings.keys() - accepted
    if unknown:
        raise TypeError(f"{owner} has no argument {', '.join(sorted(unknown))}; expected one of: {', '.join(accepted)}")
    return {key: _CHECKS[key](key, value) if key in _CHECKS else _to_python(value) for key, value in settings.items()}


def _non_negative(name: str, value: float) -> float:
    return check_number(name, value, 0)


def _decay_rate(name: str, value: float) -> float:
    """Validate the decay rate of a running mean, in [0, 1)."""
    number = check_number(name, value, 0)
    if number >= 1:
        raise ValueError(f"{name} is {value!r}, expected a number in [0, 1)")
    return number


def _two_decay_rates(name: str, values: Sequence[float]) -> tuple[float, float]:
    if not isinstance(values, Sequence | np.ndarray) or len(values) != 2:
        raise ValueError(f"{name} is {values!r}, expected two numbers in [0, 1)")
    return _decay_rate(name, values[0]), _decay_rate(name, values[1])


_CHECKS = {"lr": _non_negative, "weight_decay": _non_negative, "momentum": _decay_rate, "betas": _two_decay_rates}
_GROUP_KEYS = ("params", "param_names", "name", "initial_lr")
"""Keys of a parameter group other than settings; schedulers with `last_epoch` start from `initial_lr`."""


def _to_python(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_to_python, value)) if isinstance(value, tuple) else value


def _entries(model_params: Parameters) -> list[Any]:
    """Return parameters or groups as lists, since iterators can be consumed only once."""
    if isinstance(model_params, nn.Module):
        return list(model_params.parameters())
    if isinstance(model_params, str | Tensor | Mapping) or not isinstance(model_params, Iterable):
        raise TypeError(f"model_params is {_type_of(model_params)}, expected parameters, parameter groups or a network")
    entries = list(model_params)
    for entry in entries:
        if not isinstance(entry, dict) and not _is_parameter(entry):
            raise TypeError(f"model_params contains {_type_of(entry)}, expected parameters or parameter groups")
    return [_with_listed_params(entry) if isinstance(entry, dict) else entry for entry in entries]


def _with_listed_params(group: dict[str, Any]) -> dict[str, Any]:
    if "params" not in group:
        raise ValueError(f"a parameter group has no 'params', only {sorted(group)}")
    params = group["params"]
    if isinstance(params, Tensor):
        return group | {"params": [params]}
    params = list(params) if isinstance(params, Iterable) and not isinstance(params, str | nn.Module) else [params]
    for entry in params:
        if not _is_parameter(entry):
            raise TypeError(f"'params' of a parameter group contains {_type_of(entry)}, expected parameters")
    return group | {"params": params}


def _is_parameter(entry: Any) -> bool:
    """Return whether the entry is a tensor or a pair of a name and a tensor."""
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str):
        return isinstance(entry[1], Tensor)
    return isinstance(entry, Tensor)


def _type_of(value: object) -> str:
    return f"a {type(value).__name__}"


def _tensors(entry: Any) -> list[Tensor]:
    entries = entry["params"] if isinstance(entry, dict) else [entry]
    return [p[1] if isinstance(p, tuple) else p for p in entries]


# Time per step relative to torch's for-loop implementation (CPU, torch 2.13, one thread): fused AdamW and Adam 0.23 to
# 0.38 for 54 thousand to 24 million parameters (1.0 to 1.1 for 3.8 million in channels-last layout, which they copy);
# foreach (SGD, RMSprop and most others) 0.6 to 0.9 below half a million parameters, and 1.1 to 1.6 above, where its
# passes over all tensors exceed the cache; ASGD is never faster. Fused SGD is fast as well (0.22 to 0.53), but wrong:
# on a CPU it skips float16 and bfloat16 weights, and its momentum stays uninitialized if a gradient scaler skips the
# first step.
_FUSED = (AdamW, Adam)
_SLOWER_WITH_FOREACH = (torch.optim.ASGD,)
_MAX_FOREACH_PARAMETERS = 1 << 18


def _implementation(kind: type[Optimizer], tensors: list[Tensor], kwargs: dict[str, Any]) -> dict[str, bool]:
    """Select the fastest of torch's implementations; an empty result leaves the choice to torch, in every step.

    The selection must remain valid if the network is moved to another device later.
    """
    if kwargs.keys() & {"fused", "foreach", "differentiable"} or any(is_lazy(p) for p in tensors):
        return {}
    if not all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in tensors):
        return {}
    if kind in _FUSED:
        return {"fused": True}
    has_foreach = "foreach" in inspect.signature(kind).parameters and kind not in _SLOWER_WITH_FOREACH
    # On a GPU, foreach is torch's default.
    is_faster = tensors[0].is_cpu and sum(p.numel() for p in tensors) <= _MAX_FOREACH_PARAMETERS
    return {"foreach": True} if has_foreach and is_faster else {}
