"""Optimizers by name, over `torch.optim`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from whirl.validation import check_name, check_number

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]] | nn.Module
"""Parameters, parameter groups, named parameters, or the network that holds them."""

_BY_NAME: dict[str, type[Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
}
_REFUSED = {
    "lbfgs": "it evaluates the loss several times in a step, through a closure that the training loop does not pass",
    "sparseadam": "it takes sparse gradients only, and the layers of a signal network give dense ones",
}
_NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Batch (synchronised, lazy), instance, layer, group and RMS normalisation of any dimension."""


def optimizer_names() -> list[str]:
    """The names that `create_optimizer` knows, sorted."""
    return sorted(_BY_NAME.keys() - _REFUSED.keys())


def create_optimizer(
    optimizer_type: str = "adamw",
    model_params: Parameters | None = None,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    **kwargs: Any,
) -> Optimizer:
    """An optimizer by its name.

    `'adamw'`, `'sgd'` (momentum 0.9, Nesterov) and `'rmsprop'` have the defaults of their own functions here, but for
    the learning rate and the weight decay; `'adam'` and every other name have torch's. Weight decay is decoupled from
    the gradient in AdamW and Muon, and added to the gradient (L2) in the others unless they are told otherwise. Of
    torch's implementations the fastest one is taken (fused, foreach or plain); `fused=` and `foreach=` override that.

    Args:
        optimizer_type: name of an optimizer in `torch.optim`, in any case.
        model_params: parameters, parameter groups (whose own settings win; their `lr` may be 0), or a network.
        lr: learning rate, > 0.
        weight_decay: weight decay, >= 0.
        **kwargs: further arguments of the torch optimizer. NumPy's numbers are made plain ones, for they would make
            the checkpoint need pickle.

    Raises:
        TypeError: `model_params` is nothing to optimise, or a keyword is none of the optimizer's.
        ValueError: the name is unknown, or the optimizer cannot work in the training loop, on these parameters or with
            these numbers; there is no parameter.

    Example:
        >>> network = nn.Linear(8, 2)
        >>> optimizer = create_optimizer("sgd", network, lr=0.1)
        >>> optimizer.defaults["momentum"], optimizer.defaults["nesterov"], optimizer.defaults["weight_decay"]
        (0.9, True, 0.0001)
        >>> type(create_optimizer(model_params=network, **OptimizerConfig.default())).__name__
        'AdamW'
    """
    if not isinstance(optimizer_type, str):
        raise TypeError(f"optimizer_type is {_kind(optimizer_type)}, expected a name such as 'adamw'")
    name = optimizer_type.lower()
    if name in _REFUSED:
        raise ValueError(f"{optimizer_type!r} cannot train here: {_REFUSED[name]}")
    check_name("optimizer", name, optimizer_names())
    if model_params is None:
        raise TypeError("model_params is missing: give parameters, parameter groups or a network")
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
    """AdamW: Adam with weight decay decoupled from the gradient (Loshchilov & Hutter 2019).

    Args:
        model_params: parameters, parameter groups, or a network.
        lr: learning rate, > 0.
        weight_decay: share of a weight, in units of `lr`, that a step takes away, >= 0.
        betas: memory of the running means of the gradient and of its square, each in [0, 1).
        **kwargs: further arguments of `torch.optim.AdamW`.

    Raises:
        TypeError: `model_params` is nothing to optimise, or a keyword is none of the optimizer's.
        ValueError: a number is out of its range, or there is no parameter.

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
    """Stochastic gradient descent with Nesterov's momentum (Sutskever et al. 2013).

    Args:
        model_params: parameters, parameter groups, or a network.
        lr: learning rate, > 0.
        momentum: memory of the running sum of gradients, in [0, 1); 0 is plain gradient descent, for which `nesterov`
            has no meaning.
        weight_decay: L2 penalty, >= 0: the gradient gets `weight_decay` times the weight.
        nesterov: whether to look ahead by the momentum.
        **kwargs: further arguments of `torch.optim.SGD`.

    Raises:
        TypeError: `model_params` is nothing to optimise, or a keyword is none of the optimizer's.
        ValueError: a number is out of its range, or there is no parameter.

    Example:
        >>> create_sgd_optimizer(nn.Linear(8, 2)).defaults["nesterov"]
        True
    """
    look_ahead = nesterov and momentum != 0  # torch refuses what would change nothing
    return _build(SGD, model_params, lr, weight_decay, {"momentum": momentum, "nesterov": look_ahead, **kwargs})


def create_rmsprop_optimizer(
    model_params: Parameters, lr: float = 1e-3, weight_decay: float = 1e-5, alpha: float = 0.99, **kwargs: Any
) -> RMSprop:
    """RMSprop: the gradient over the root of the running mean of its square (Tieleman & Hinton 2012).

    Args:
        model_params: parameters, parameter groups, or a network.
        lr: learning rate, > 0.
        weight_decay: L2 penalty, >= 0: the gradient gets `weight_decay` times the weight.
        alpha: memory of the running mean, in [0, 1).
        **kwargs: further arguments of `torch.optim.RMSprop`.

    Raises:
        TypeError: `model_params` is nothing to optimise, or a keyword is none of the optimizer's.
        ValueError: a number is out of its range, or there is no parameter.

    Example:
        >>> create_rmsprop_optimizer(nn.Linear(8, 2)).defaults["alpha"]
        0.99
    """
    alpha = _memory("alpha", alpha)  # torch takes alpha > 1, which makes the mean negative
    return _build(RMSprop, model_params, lr, weight_decay, {"alpha": alpha, **kwargs})


def get_parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    no_decay_keywords: Sequence[str] = ("bias", "norm"),
) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: with weight decay, and without.

    Decay shrinks the weights of linear maps. Free of it are the parameters of every normalisation layer of torch's,
    whatever it is called; all of fewer than two dimensions, such as biases and scales; and those whose path contains a
    keyword as a whole word: `norm` is in `blocks.0.post_norm.weight` and in `norm1`, not in `abnormal_head`. Every
    other parameter decays: the scale `[C, 1, 1]` of a normalisation layer of your own unless a keyword names it, and
    the lengths `[out, 1]` that `weight_norm` splits off. A parameter shared by several modules is free if it is free in
    any of them. Every trainable parameter is in exactly one group, in the model's order; frozen ones are in none.

    Args:
        model: whose parameters are grouped.
        lr: learning rate of both groups, > 0.
        weight_decay: weight decay of the first group, >= 0.
        no_decay_keywords: words, in any case, whose parameters are free of decay; anything but a letter parts words.

    Returns:
        Groups for `create_optimizer`, the decaying one first; an empty one is left out.

    Raises:
        TypeError: `no_decay_keywords` is a single string or holds something else, or `model` is no network.
        ValueError: a number is out of its range, a keyword holds no letter, or the model has no trainable parameter or
            one whose shape a first batch has yet to tell (lazy layers).

    Example:
        >>> network = nn.Sequential(nn.Conv1d(1, 8, 5), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> groups = get_parameter_groups(network, lr=1e-3, weight_decay=0.05)
        >>> [(group["weight_decay"], [list(p.shape) for p in group["params"]]) for group in groups]
        [(0.05, [[8, 1, 5], [2, 8]]), (0.0, [[8], [8], [8], [2]])]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {_kind(model)}, expected a network (nn.Module)")
    if isinstance(no_decay_keywords, str):
        raise TypeError(f"no_decay_keywords is {no_decay_keywords!r}, expected a list of such")
    lr, weight_decay = _checked_rates(lr, weight_decay)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(f"{_kind(model)} has no trainable parameter")
    if any(is_lazy(p) for p in trainable):
        raise ValueError(f"{_kind(model)} has parameters without a shape yet: pass a batch through the network first")
    free = _free_of_decay(model, [_keyword(keyword) for keyword in no_decay_keywords])
    groups = [
        {"params": [p for p in trainable if p not in free], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trainable if p in free], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _free_of_decay(model: nn.Module, keywords: list[str]) -> set[nn.Parameter]:
    of_norms = {p for m in model.modules() if isinstance(m, _NORMALIZATIONS) for p in m.parameters(recurse=False)}
    return of_norms | {
        p
        for path, p in model.named_parameters(remove_duplicate=False)
        if p.ndim < 2 or any(keyword in _words(path) for keyword in keywords)
    }


def _words(path: str) -> str:
    """Its words with a space around each, so that `in` finds whole ones."""
    return " " + " ".join(re.findall(r"[^\W\d_]+", path.lower())) + " "


def _keyword(keyword: str) -> str:
    if not isinstance(keyword, str):
        raise TypeError(f"no_decay_keywords holds {keyword!r}, expected strings")
    if not _words(keyword).strip():
        raise ValueError(f"no_decay_keywords holds {keyword!r}, expected a word")
    return _words(keyword)


class OptimizerConfig(dict[str, Any]):
    """Settings of an optimizer, ready for `create_optimizer(model_params=..., **settings)`.

    A dictionary that cannot be changed, so that nobody's change becomes everybody's preset, and that has a hash;
    `settings | {"lr": 3e-4}` gives an ordinary one with the change, and so does `dict(settings)` for YAML.

    Example:
        >>> settings = OptimizerConfig.sgd_baseline()
        >>> settings["momentum"], (settings | {"momentum": 0.8})["momentum"]
        (0.9, 0.8)
        >>> settings["momentum"] = 0.8
        Traceback (most recent call last):
        TypeError: OptimizerConfig cannot be changed; settings | {...} gives a changed copy
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self:  # dict's own would add to a finished one
            self._refuse()
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(frozenset(self.items()))

    @classmethod
    def default(cls) -> OptimizerConfig:
        """AdamW at 1e-3 with little weight decay: where to begin."""
        return cls(optimizer_type="adamw", lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.999))

    @classmethod
    def fast_convergence(cls) -> OptimizerConfig:
        """AdamW at 3e-3 with a shorter memory, for few epochs: WDCNN's loss is half as high after three.

        A transformer gains nothing.
        """
        return cls(optimizer_type="adamw", lr=3e-3, weight_decay=1e-4, betas=(0.9, 0.99))

    @classmethod
    def strong_regularization(cls) -> OptimizerConfig:
        """AdamW with 500 times the default's decay, as transformers need on little data (Touvron et al. 2021)."""
        return cls(optimizer_type="adamw", lr=1e-3, weight_decay=0.05, betas=(0.9, 0.999))

    @classmethod
    def sgd_baseline(cls) -> OptimizerConfig:
        """SGD with Nesterov's momentum at 1e-2, as most published baselines of convolutional networks."""
        return cls(optimizer_type="sgd", lr=1e-2, momentum=0.9, weight_decay=1e-4, nesterov=True)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("OptimizerConfig cannot be changed; settings | {...} gives a changed copy")

    __setitem__ = __delitem__ = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return type(self), (dict(self),)  # copies and pickles would set item by item


def _build(
    kind: type[Optimizer], model_params: Parameters, lr: float, weight_decay: float, kwargs: dict[str, Any]
) -> Any:
    lr, weight_decay = _checked_rates(lr, weight_decay)
    accepted = list(inspect.signature(kind).parameters)[1:]
    kwargs = _settings(kind.__name__, kwargs, accepted)
    if "weight_decay" in accepted:
        kwargs = {"weight_decay": weight_decay, **kwargs}
    elif weight_decay:
        raise ValueError(f"{kind.__name__} knows no weight decay, but weight_decay is {weight_decay}: set it to 0")
    entries = [
        _settings("a parameter group", entry, [*_GROUP_KEYS, *accepted]) if isinstance(entry, dict) else entry
        for entry in _entries(model_params)
    ]
    tensors = [p for entry in entries for p in _tensors(entry)]
    if not tensors:
        raise ValueError("there is no parameter to optimise: model_params is empty")
    if kind is torch.optim.Muon and (odd := [list(p.shape) for p in tensors if p.ndim != 2]):
        raise ValueError(
            f"Muon takes only matrices, the weights of linear layers, but {len(odd)} of {len(tensors)} parameters are "
            f"none, the first of shape {odd[0]}: use another optimizer, such as adamw, for this network"
        )
    return kind(entries, lr=lr, **_fastest(kind, tensors, kwargs), **kwargs)  # pyright: ignore[reportCallIssue]


def _checked_rates(lr: float, weight_decay: float) -> tuple[float, float]:
    return check_number("lr", lr, 0, open_ends=True), check_number("weight_decay", weight_decay, 0)


def _settings(owner: str, settings: dict[str, Any], accepted: Sequence[str]) -> dict[str, Any]:
    """Settings of an optimizer or of a group, checked where torch does not, as plain numbers."""
    unknown = settings.keys() - accepted
    if unknown:
        raise TypeError(f"{owner} has no argument {', '.join(sorted(unknown))}; it has {', '.join(accepted)}")
    return {key: _RANGES[key](key, value) if key in _RANGES else _plain(value) for key, value in settings.items()}


def _least_zero(name: str, value: float) -> float:
    return check_number(name, value, 0)


def _memory(name: str, value: float) -> float:
    """Weight of the past in a running mean, in [0, 1)."""
    number = check_number(name, value, 0)
    if number >= 1:
        raise ValueError(f"{name} is {value!r}, expected a number in [0, 1)")
    return number


def _two_memories(name: str, values: Sequence[float]) -> tuple[float, float]:
    if not isinstance(values, Sequence | np.ndarray) or len(values) != 2:
        raise ValueError(f"{name} is {values!r}, expected two numbers in [0, 1)")
    return _memory(name, values[0]), _memory(name, values[1])


_RANGES = {"lr": _least_zero, "weight_decay": _least_zero, "momentum": _memory, "betas": _two_memories}
_GROUP_KEYS = ("params", "param_names", "name", "initial_lr")
"""What a group holds beside settings; `initial_lr` is what a scheduler begins with in the middle of a training."""


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _entries(model_params: Parameters) -> list[Any]:
    """What an optimizer takes, with every iterator made a list, for they can be walked only once."""
    if isinstance(model_params, nn.Module):
        return list(model_params.parameters())
    if isinstance(model_params, str | Tensor | Mapping) or not isinstance(model_params, Iterable):
        raise TypeError(f"model_params is {_kind(model_params)}, expected parameters, parameter groups or a network")
    entries = list(model_params)
    for entry in entries:
        if not isinstance(entry, dict) and not _is_parameter(entry):
            raise TypeError(f"model_params holds {_kind(entry)}, expected parameters or parameter groups")
    return [_listed(entry) if isinstance(entry, dict) else entry for entry in entries]


def _listed(group: dict[str, Any]) -> dict[str, Any]:
    if "params" not in group:
        raise ValueError(f"a parameter group has no 'params', only {sorted(group)}")
    params = group["params"]
    if isinstance(params, Tensor):
        return group | {"params": [params]}
    params = list(params) if isinstance(params, Iterable) and not isinstance(params, str | nn.Module) else [params]
    for entry in params:
        if not _is_parameter(entry):
            raise TypeError(f"'params' of a parameter group holds {_kind(entry)}, expected parameters")
    return group | {"params": params}


def _is_parameter(entry: Any) -> bool:
    """Whether it is a tensor, or one with its name before it."""
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str):
        return isinstance(entry[1], Tensor)
    return isinstance(entry, Tensor)


def _kind(thing: object) -> str:
    return f"a {type(thing).__name__}"


def _tensors(entry: Any) -> list[Tensor]:
    entries = entry["params"] if isinstance(entry, dict) else [entry]
    return [p[1] if isinstance(p, tuple) else p for p in entries]


# Measured on a CPU, torch 2.13, one thread, time of a step in that of torch's plain loop: fused AdamW and Adam 0.23 to
# 0.38, from 54 thousand to 24 million numbers (1.0 to 1.1 for 3.8 million in channels-last layout, which they copy);
# foreach (SGD, RMSprop and most others) 0.6 to 0.9 below half a million numbers, 1.1 to 1.6 above, where its passes
# over all tensors leave the cache; ASGD never gains. Fused SGD is fast too (0.22 to 0.53) but wrong: on a CPU it skips
# float16 and bfloat16 weights, and a first step that a gradient scaler skips leaves its momentum uninitialised.
_FUSED = (AdamW, Adam)
_FOREACH_LOSES = (torch.optim.ASGD,)
_FEW = 1 << 18


def _fastest(kind: type[Optimizer], tensors: list[Tensor], kwargs: dict[str, Any]) -> dict[str, bool]:
    """Which of torch's implementations to ask for; none leaves it to torch, which then decides at every step.

    What is chosen must hold when the network is moved to another device later.
    """
    if kwargs.keys() & {"fused", "foreach", "differentiable"} or any(is_lazy(p) for p in tensors):
        return {}
    if not all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in tensors):
        return {}
    if kind in _FUSED:
        return {"fused": True}
    has_foreach = "foreach" in inspect.signature(kind).parameters and kind not in _FOREACH_LOSES
    on_cpu = tensors[0].is_cpu  # on a GPU torch takes foreach of its own accord
    return {"foreach": True} if has_foreach and on_cpu and sum(p.numel() for p in tensors) <= _FEW else {}
