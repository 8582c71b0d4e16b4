"""What a student learns from: a frozen teacher, its logits kept by sample, its features."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from whirl.data.loaders import BatchSampler
from whirl.engine.batch import Batch
from whirl.engine.distributed import broadcast_weights

logger = logging.getLogger(__name__)

_USUAL_BATCH = 64


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Networks in evaluation mode and without gradients; afterwards every module and parameter is as it was.

    Example:
        >>> teacher = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with frozen(teacher):
        ...     teacher.training, teacher[0].weight.requires_grad
        (False, False)
        >>> teacher.training, teacher[0].weight.requires_grad
        (True, True)
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    gradients = [(parameter, parameter.requires_grad) for network in networks for parameter in network.parameters()]
    try:
        for network in networks:
            network.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)


def fingerprint(model: nn.Module) -> str:
    """Hash of a network's weights and buffers, 16 hexadecimal digits.

    Example:
        >>> fingerprint(nn.Identity()) == fingerprint(nn.ReLU())  # neither has weights
        True
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def unshuffled(loader: Iterable[Any]) -> Iterable[Any]:
    """The batches of all samples of a loader's data set, in its own order; nothing is shuffled or left out.

    Going through them draws nothing from any generator of the loader or of torch. What is no `DataLoader` is taken as
    it is.
    """
    if not isinstance(loader, DataLoader):
        return loader
    own = loader.sampler if isinstance(loader.sampler, BatchSampler) else None
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size or (None if loader.batch_sampler is None else _USUAL_BATCH),
        sampler=None if own is None else BatchSampler(own.n_samples, own.batch_size),
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),
    )


class TeacherLogits:
    """A teacher's logits for every sample of a data set, looked up a batch at a time.

    A sample is known by its metadata: `"index"`, or `"recording"` and `"start"` as windows have them. A lookup is a
    binary search among sorted numbers on the device: nothing per sample in Python, no wait for the device.

    Args:
        batches: every sample once.
        ask: logits `[B, K]` of a batch.

    Attributes:
        logits: `[N, K]`, on the device, in the order of the samples' numbers.

    Raises:
        ValueError: the metadata do not tell one sample from another.

    Example:
        >>> batch = Batch(torch.randn(3, 1, 8), torch.zeros(3).long(), {"index": torch.tensor([7, 4, 9])})
        >>> known = TeacherLogits([batch], lambda batch: batch.signals[:, 0, :2])
        >>> torch.equal(known({"index": torch.tensor([9, 7])}), batch.signals[[2, 0], 0, :2])
        True
    """

    def __init__(self, batches: Iterable[Batch], ask: Callable[[Batch], Tensor]) -> None:
        asked = [(*_position(batch.metadata), ask(batch)) for batch in batches]
        if not asked:
            raise ValueError("there is no sample to ask the teacher about")
        recording, start, logits = (torch.cat(column) for column in zip(*asked, strict=True))
        self._span = int(start.max()) + 1
        self._numbers, order = torch.sort(self._number(recording, start))
        if bool((self._numbers[1:] == self._numbers[:-1]).any()):
            raise ValueError("two samples have the same metadata 'index', or 'recording' and 'start'")
        self.logits = logits[order]
        logger.info("the teacher's logits of %d samples are kept", len(logits))

    def __call__(self, metadata: Mapping[str, Tensor]) -> Tensor:
        """Logits `[B, K]` of the samples that metadata name.

        Raises:
            ValueError: one was not in the data set; on an accelerator, which would have to be waited for, its logits
                are NaN.
        """
        wanted = self._number(*_position(metadata))
        place = torch.searchsorted(self._numbers, wanted).clamp_(max=len(self._numbers) - 1)
        unknown = self._numbers[place] != wanted
        logits = self.logits[place]
        if not unknown.is_cpu:
            return logits.masked_fill_(unknown[:, None], torch.nan)
        if unknown.any():
            raise ValueError(
                f"sample {int(unknown.nonzero()[0])} of the batch was not there when the teacher was asked"
            )
        return logits

    def _number(self, recording: Tensor, start: Tensor) -> Tensor:
        return torch.add(start, recording, alpha=self._span)


def _position(metadata: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Recording and place in it of each sample, int64 `[B]`; an index is a place in a single recording."""
    if "index" in metadata:
        return torch.zeros_like(metadata["index"]), metadata["index"]
    if "recording" in metadata and "start" in metadata:
        return metadata["recording"], metadata["start"]
    raise ValueError(
        "to know a sample again its batch needs the metadata 'index', or 'recording' and 'start'; "
        f"it has {sorted(metadata)}"
    )


class FeatureHints:
    """Asks inner layers of a student to resemble inner layers of its teacher (after Romero et al. 2015, FitNets).

    The loss is the sum over the pairs of the mean squared difference of their features `[B, C, ...]` or `[B, D]`. Where
    the student has another number of channels, a learnt convolution of one tap brings its features to the teacher's. It
    is made at the first batch, and its weights join the optimizer's first group, under whose rate and schedule they are
    trained. Features are taken as the forward pass leaves them, behind an activation that works in place.

    Args:
        pairs: `{module of the student: module of the teacher}`, by their names in `named_modules()`.
        student: the network that learns.
        teacher: the network that it learns from.
        optimizer: of the student.

    Attributes:
        projections: one for each pair, the identity where the widths agree; None before the first batch.

    Raises:
        ValueError: a network has no such module, or there is no pair.
    """

    def __init__(
        self, pairs: Mapping[str, str], student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        if not pairs:
            raise ValueError("feature_hints is empty, expected {module of the student: module of the teacher}")
        self.pairs = dict(pairs)
        self.projections: nn.ModuleList | None = None
        self._optimizer = optimizer
        self._modules = [
            (_submodule(student, s, "student"), _submodule(teacher, t, "teacher")) for s, t in pairs.items()
        ]
        self._student: dict[int, Tensor] = {}
        self._teacher: dict[int, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block every forward pass leaves its features here."""
        handles = []
        for index, (student, teacher) in enumerate(self._modules):
            handles += [
                student.register_forward_hook(partial(_keep, self._student, index)),
                teacher.register_forward_hook(partial(_keep, self._teacher, index)),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._student.clear()
            self._teacher.clear()

    def loss(self) -> Tensor:
        """Of the last forward passes of both networks; a scalar.

        Raises:
            TypeError: a module's output is no tensor.
            ValueError: features of a pair differ in length.
        """
        features = [(_rows(self._student[i]), _rows(self._teacher[i]).detach()) for i in range(len(self._modules))]
        if self.projections is None:
            self._check_lengths(features)
            self._build([(s.shape[1], t.shape[1]) for s, t in features], features[0][0].device)
        projected = [(p(s), t) for p, (s, t) in zip(self.projections or (), features, strict=True)]
        return torch.stack([F.mse_loss(at_least_float32(s), at_least_float32(t)) for s, t in projected]).sum()

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of the projections, by place of their pair."""
        return {} if self.projections is None else self.projections.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Take back what `state_dict` gave; before the optimizer does, which must know the weights then.

        Raises:
            ValueError: the state has a pair more.
        """
        if not state:
            return
        if self.projections is None:
            widths = {int(name.split(".")[0]): (w.shape[1], w.shape[0]) for name, w in state.items()}
            if max(widths) >= len(self.pairs):
                raise ValueError(f"the state has {max(widths) + 1} feature hints, here are {len(self.pairs)}")
            self._build([widths.get(index, (0, 0)) for index in range(len(self.pairs))], device)
        self.projections.load_state_dict(state)  # type: ignore[union-attr]

    def _build(self, widths: Iterable[tuple[int, int]], device: torch.device) -> None:
        self.projections = nn.ModuleList(
            nn.Identity() if student == teacher else nn.Conv1d(student, teacher, 1, bias=False, device=device)
            for student, teacher in widths
        )
        broadcast_weights(self.projections)  # each process has drawn its own
        self._optimizer.param_groups[0]["params"] += self.projections.parameters()

    def _check_lengths(self, features: Iterable[tuple[Tensor, Tensor]]) -> None:
        for (student, teacher), (mine, theirs) in zip(self.pairs.items(), features, strict=True):
            if mine.shape[2] != theirs.shape[2]:
                raise ValueError(
                    f"feature hint {student!r}: {teacher!r}: the student has {mine.shape[2]} steps there and the "
                    f"teacher {theirs.shape[2]}; name modules with as many"
                )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _submodule(network: nn.Module, name: str, whose: str) -> nn.Module:
    modules = dict(getattr(network, "module", network).named_modules())
    if not name or name not in modules:
        raise ValueError(f"the {whose} has no module {name!r}; it has {', '.join(filter(None, modules))}")
    return modules[name]


def _keep(features: dict[int, Tensor], index: int, module: nn.Module, inputs: Any, output: Any) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(f"{type(module).__name__} gives {type(output).__name__}, and a feature hint needs a tensor")
    features[index] = output


def _rows(features: Tensor) -> Tensor:
    """`[B, C, N]` of features `[B, C, ...]` or `[B, D]`."""
    return features[:, :, None] if features.ndim == 2 else features.flatten(2)
