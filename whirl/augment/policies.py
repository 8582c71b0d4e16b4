"""Augmentation policies: operations by name and magnitude, presets, and random selection of sub-policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from whirl.augment import signals as raw
from whirl.augment import vibration
from whirl.augment.base import Augmentation, Compose, RandomApply, as_augmentation
from whirl.augment.signal_mixing import MixupAugmentation, cutmix_samples
from whirl.engine.batch import Batch
from whirl.registry import Registry
from whirl.validation import check_count, check_name, check_number

Step = tuple[str, float, float]
SubPolicy = Sequence[Step]
Policy = Sequence[SubPolicy]
SignalFunction = Callable[[Tensor, float, torch.Generator | None], Tensor]
BatchFunction = Callable[[Batch, float, torch.Generator | None], Batch]


def _on_signals(function: SignalFunction) -> BatchFunction:
    def apply(batch: Batch, magnitude: float, generator: torch.Generator | None) -> Batch:
        return batch._replace(signals=function(batch.signals, magnitude, generator))

    return apply


def _speed_jitter(batch: Batch, magnitude: float, generator: torch.Generator | None) -> Batch:
    rpm = batch.metadata.get("rpm")
    signals, rpm = vibration.speed_jitter(batch.signals, 0.1 * magnitude, rpm, generator=generator)
    return batch._replace(signals=signals, metadata=batch.metadata if rpm is None else batch.metadata | {"rpm": rpm})


def _mixup(batch: Batch, magnitude: float, generator: torch.Generator | None) -> Batch:
    return MixupAugmentation(magnitude).augment(batch, generator)


def _cutmix(batch: Batch, magnitude: float, generator: torch.Generator | None) -> Batch:
    return cutmix_samples(batch, magnitude, prob=1.0, generator=generator)


class _OperationSpec(NamedTuple):
    """An operation of a policy, and the meaning of its magnitude."""

    apply: BatchFunction
    magnitude: str


OPERATIONS: dict[str, _OperationSpec] = {
    "polarity_flip": _OperationSpec(
        _on_signals(lambda s, m, g: vibration.polarity_flip(s, 1.0, generator=g)), "unused"
    ),
    "time_shift": _OperationSpec(
        _on_signals(lambda s, m, g: raw.time_shift(s, round(m * s.shape[-1]), generator=g)),
        "maximum circular shift as a fraction of the window",
    ),
    "time_mask": _OperationSpec(
        _on_signals(lambda s, m, g: raw.time_masking(s, round(m * s.shape[-1] / 4), generator=g)),
        "maximum mask as a fraction of a quarter of the window",
    ),
    "scale": _OperationSpec(
        _on_signals(lambda s, m, g: raw.amplitude_scaling(s, (1 - m / 2, 1 + m / 2), generator=g)),
        "factors within 1 ± magnitude / 2",
    ),
    "sensor": _OperationSpec(
        _on_signals(lambda s, m, g: vibration.sensor_gain_and_offset(s, gain_db=6 * m, offset=m / 5, generator=g)),
        "gain of each channel within ± 6 dB · magnitude, offset within ± magnitude / 5 of its RMS",
    ),
    "white_noise": _OperationSpec(
        _on_signals(lambda s, m, g: vibration.additive_machine_noise(s, 30 * (1 - m), generator=g)),
        "signal-to-noise ratio of 30 dB · (1 - magnitude)",
    ),
    "pink_noise": _OperationSpec(
        _on_signals(lambda s, m, g: vibration.additive_machine_noise(s, 30 * (1 - m), color="pink", generator=g)),
        "signal-to-noise ratio of 30 dB · (1 - magnitude)",
    ),
    "speed_jitter": _OperationSpec(_speed_jitter, "speed within ± 10 % · magnitude"),
    "band_stop": _OperationSpec(
        _on_signals(lambda s, m, g: vibration.band_stop(s, 1.0, max_width_hz=0.1 * m, generator=g)),
        "maximum bandwidth of 0.1 · magnitude · sampling rate",
    ),
    "surrogate": _OperationSpec(
        _on_signals(lambda s, m, g: vibration.random_phase_surrogate(s, generator=g)), "unused"
    ),
    "mixup": _OperationSpec(_mixup, "alpha of the Beta distribution, > 0"),
    "cutmix": _OperationSpec(_cutmix, "alpha of the Beta distribution, > 0"),
}

# Operations of a policy search. Operations that mix labels are excluded, since they change the loss to be compared.
SEARCH_OPERATIONS = tuple(name for name in OPERATIONS if name not in ("mixup", "cutmix"))

RAND_OPERATIONS = ("identity", *(name for name in SEARCH_OPERATIONS if name != "surrogate"))
"""Default operations of `RandAugment`."""

DEFAULT_POLICY: Policy = (
    (("polarity_flip", 0.5, 0.0), ("time_shift", 1.0, 1.0)),
    (("polarity_flip", 0.5, 0.0), ("speed_jitter", 0.8, 0.3)),
    (("time_shift", 1.0, 1.0), ("white_noise", 0.5, 0.4)),
    (("polarity_flip", 0.5, 0.0), ("time_mask", 0.5, 0.5)),
    (("time_shift", 1.0, 1.0), ("band_stop", 0.5, 0.3)),
)

PRESETS: dict[str, SubPolicy] = {
    "light": (("polarity_flip", 0.5, 0.0),),
    "medium": (("polarity_flip", 0.5, 0.0), ("band_stop", 0.5, 0.3), ("white_noise", 0.3, 0.4)),
    "heavy": (
        ("polarity_flip", 0.5, 0.0),
        ("time_shift", 1.0, 1.0),
        ("band_stop", 0.5, 0.5),
        ("white_noise", 0.5, 0.6),
        ("time_mask", 0.5, 0.5),
        ("mixup", 0.5, 0.2),
    ),
}
"""Measured benefits on machines and bearings not seen in training: docs/results/augmentation.md."""


class Operation(Augmentation):
    """Operation of a policy by name, applied to each sample with a given probability.

    Args:
        name: a key of `OPERATIONS`.
        probability: probability of applying the operation to a sample, in [0, 1].
        magnitude: strength of the operation, in [0, 1]; its meaning is given by `OPERATIONS[name].magnitude`.

    Raises:
        ValueError: the name is unknown, or a number is out of range.

    Example:
        >>> Operation("polarity_flip", 1.0, 0.0)(torch.ones(1, 1, 2))
        tensor([[[-1., -1.]]])
    """

    def __init__(self, name: str, probability: float, magnitude: float) -> None:
        check_name("operation", name, OPERATIONS)
        probability = check_number(f"probability of {name!r}", probability, 0, 1)
        magnitude = check_number(f"magnitude of {name!r}", magnitude, 0, 1)
        if name in ("mixup", "cutmix") and magnitude == 0:
            raise ValueError(f"magnitude of {name!r} is 0, expected the alpha of a Beta distribution, in (0, 1]")
        self.name, self.probability, self.magnitude = name, probability, magnitude
        self._applied = RandomApply(_WithMagnitude(name, magnitude), probability)

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        return self._applied.augment(batch, generator)

    def __repr__(self) -> str:
        return f"Operation({self.name!r}, {self.probability}, {self.magnitude})"


class _WithMagnitude(Augmentation):
    """Refers to its operation by name, so that it can be pickled for worker processes that are not forked."""

    def __init__(self, name: str, magnitude: float) -> None:
        self.name, self.magnitude = name, magnitude

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        return OPERATIONS[self.name].apply(batch, self.magnitude, generator)


def compose_policy(steps: SubPolicy) -> Compose:
    """Compose the operations of a sub-policy `[(operation, probability, magnitude), ...]`.

    Raises:
        ValueError: an entry is not such a triple, an operation is unknown, or a number is outside [0, 1].
    """
    if isinstance(steps, str) or not isinstance(steps, Sequence):
        raise ValueError(f"sub-policy is {steps!r}, expected a list of (operation, probability, magnitude)")
    for step in steps:
        if isinstance(step, str) or not isinstance(step, Sequence) or len(step) != 3:
            raise ValueError(f"sub-policy contains {step!r}, expected (operation, probability, magnitude)")
    return Compose([Operation(*step) for step in steps])


class AutoAugment(Augmentation):
    """Applies a random sub-policy of a policy to each batch (AutoAugment).

    Each call selects one sub-policy for the batch; each of its operations is applied to every sample with its own
    probability. E. D. Cubuk et al.: "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019.

    Args:
        policy: list of sub-policies `[(operation, probability, magnitude), ...]`, with operations from
            `whirl.augment.policies.OPERATIONS`. An empty sub-policy leaves the batch unchanged. None means
            `DEFAULT_POLICY`, which was selected manually.

    Raises:
        ValueError: the policy is empty, an operation is unknown, or a number is outside [0, 1].

    Example:
        >>> augment = AutoAugment([[("polarity_flip", 1.0, 0.0)], [("scale", 1.0, 0.0)]])
        >>> sorted({augment(torch.ones(1, 1, 1)).item() for _ in range(40)})
        [-1.0, 1.0]
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = DEFAULT_POLICY if policy is None else policy
        if isinstance(self.policy, str) or not isinstance(self.policy, Sequence) or not self.policy:
            raise ValueError(f"policy is {policy!r}, expected at least one sub-policy")
        self._choices = [compose_policy(steps) for steps in self.policy]

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        return self._choices[_draw_uniform(len(self._choices), generator)].augment(batch, generator)

    def __repr__(self) -> str:
        return f"AutoAugment({self.policy!r})"


def _draw_uniform(n: int, generator: torch.Generator | None) -> int:
    # Without a generator, draw on the host, where the choice is needed: this avoids a synchronization.
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(n, (), generator=generator, device=device))


class RandAugment(Augmentation):
    """Applies random operations of one strength to each batch: a policy with only two numbers to choose.

    Each call draws `num_ops` operations with replacement and applies them one after the other to all samples, each of
    which has its own draws. E. D. Cubuk et al.: "RandAugment: Practical automated data augmentation with a reduced
    search space", NeurIPS 2020.

    Args:
        num_ops: number of operations N per batch, >= 0.
        magnitude: strength M of all operations, in [0, 1]; its meaning is given by `OPERATIONS[name].magnitude`.
        operations: names of the operations to draw from; `"identity"` changes nothing. None means
            `RAND_OPERATIONS`, without those that mix samples or erase faults.

    Raises:
        ValueError: an operation is unknown, there is none, or a number is out of range.

    Example:
        >>> RandAugment(num_ops=3, operations=["polarity_flip"])(torch.ones(1, 1, 2))
        tensor([[[-1., -1.]]])
    """

    def __init__(self, num_ops: int = 2, magnitude: float = 0.3, operations: Sequence[str] | None = None) -> None:
        self.num_ops, self.magnitude = check_count("num_ops", num_ops, 0), check_number("magnitude", magnitude, 0, 1)
        self.operations = tuple(RAND_OPERATIONS if operations is None else operations)
        if not self.operations:
            raise ValueError(f"operations is empty, expected some of: {', '.join(RAND_OPERATIONS)}")
        self._choices = [
            Compose([] if name == "identity" else [Operation(name, 1.0, self.magnitude)]) for name in self.operations
        ]

    def augment(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        for _ in range(self.num_ops):
            batch = self._choices[_draw_uniform(len(self._choices), generator)].augment(batch, generator)
        return batch

    def __repr__(self) -> str:
        return f"RandAugment({self.num_ops}, {self.magnitude}, {self.operations})"


AUGMENTATIONS: Registry[Callable[[], Any]] = Registry("augmentation", group="whirl.augmentations")


def register_augmentation(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Return a decorator that registers an augmentation for `whirl train --augment`.

    The decorated class or function is called without arguments and returns an `Augmentation`, or a function
    `(signals, targets) -> (signals, targets)`.
    """
    return AUGMENTATIONS.register(name)


AUGMENTATIONS.register("randaugment")(RandAugment)


def make_augmentation(setting: str | Policy) -> Augmentation:
    """Create an augmentation from a preset or a policy.

    Args:
        setting: `'light'`, `'medium'`, `'heavy'`, `'randaugment'`, a name given to `register_augmentation`, or a policy
            as accepted by `AutoAugment`.

    Raises:
        ValueError: the preset is unknown, or the policy is invalid.

    Example:
        >>> make_augmentation("light")
        Compose([Operation('polarity_flip', 0.5, 0.0)])
    """
    if not isinstance(setting, str):
        return AutoAugment(setting)
    if setting in PRESETS:
        return compose_policy(PRESETS[setting])
    check_name("preset", setting, [*PRESETS, *AUGMENTATIONS.names()])
    return as_augmentation(AUGMENTATIONS.get(setting)())
