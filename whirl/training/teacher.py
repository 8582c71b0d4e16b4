"""The teacher's side of knowledge distillation: frozen networks, cached logits, feature hints."""

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

from whirl._precision import at_least_float32
from whirl.data.loaders import BatchSampler
from whirl.engine.batch import Batch
from whirl.engine.distributed import broadcast_weights
from whirl.engine.modes import eval_mode
from whirl.engine.wrappers import unwrap, weights_of
from whirl.validation import unknown_name

logger = logging.getLogger(__name__)

_DEFAULT_BATCH = 64


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Put networks in evaluation mode without gradients for the block; then restore every module and parameter.

    Example:
        >>> teacher = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with frozen(teacher):
        ...     teacher.training, teacher[0].weight.requires_grad
        (False, False)
        >>> teacher.training, teacher[0].weight.requires_grad
        (True, True)
    """
    gradients = [(parameter, parameter.requires_grad) for network in networks for parameter in network.parameters()]
    try:
        with eval_mode(*networks):
            for network in networks:
                network.requires_grad_(False)
            yield
    finally:
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)


def fingerprint(model: nn.Module) -> str:
    """Return a hash of a network's weights and buffers, 16 hexadecimal digits.

    Example:
        >>> fingerprint(nn.Identity()) == fingerprint(nn.ReLU())  # neither has weights
        True
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in weights_of(model).items():
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def unshuffled(loader: Iterable[Any]) -> Iterable[Any]:
    """Return a loader over all samples of the same data set in their own order, without shuffling or dropping any.

    Iterating over it draws nothing from a generator of the original loader or from torch's global generator. Anything
    other than a `DataLoader` is returned unchanged.
    """
    if not isinstance(loader, DataLoader):
        return loader
    own = loader.sampler if isinstance(loader.sampler, BatchSampler) else None
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size or (None if loader.batch_sampler is None else _DEFAULT_BATCH),
        sampler=None if own is None else BatchSampler(own.n_samples, own.batch_size),
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),
    )


class TeacherLogits:
    """The logits of a teacher for every sample of a data set, looked up by batch.

    A sample is identified by its metadata: `"index"`, or `"recording"` and `"start"` as windows have them. A lookup is
    a binary search among sorted keys on the device, without Python code per sample and without waiting for the device.

    Args:
        batches: every sample once.
        run_teacher: returns the logits `[B, K]` of a batch.

    Attributes:
        logits: `[N, K]`, on the device, in the order of the samples' keys.

    Raises:
        ValueError: the metadata do not identify the samples.

    Example:
        >>> batch = Batch(torch.randn(3, 1, 8), torch.zeros(3).long(), {"index": torch.tensor([7, 4, 9])})
        >>> cached = TeacherLogits([batch], lambda batch: batch.signals[:, 0, :2])
        >>> torch.equal(cached({"index": torch.tensor([9, 7])}), batch.signals[[2, 0], 0, :2])
        True
    """

    def __init__(self, batches: Iterable[Batch], run_teacher: Callable[[Batch], Tensor]) -> None:
        rows = [(*_position(batch.metadata), run_teacher(batch)) for batch in batches]
        if not rows:
            raise ValueError("train_loader yielded no batch, so there are no teacher logits to cache")
        recording, start, logits = (torch.cat(column) for column in zip(*rows, strict=True))
        self._span = int(start.max()) + 1
        self._keys, order = torch.sort(self._key(recording, start))
        if bool((self._keys[1:] == self._keys[:-1]).any()):
            raise ValueError("two samples have the same metadata 'index', or 'recording' and 'start'")
        self.logits = logits[order]
        logger.info("cached the teacher's logits of %d samples", len(logits))

    def __call__(self, metadata: Mapping[str, Tensor]) -> Tensor:
        """Return the logits `[B, K]` of the samples that the metadata identify.

        Raises:
            ValueError: a sample was not in the data set. On an accelerator, where the check would wait for the device,
                its logits are NaN instead.
        """
        wanted = self._key(*_position(metadata))
        place = torch.searchsorted(self._keys, wanted).clamp_(max=len(self._keys) - 1)
        unknown = self._keys[place] != wanted
        logits = self.logits[place]
        if not unknown.is_cpu:
            return logits.masked_fill_(unknown[:, None], torch.nan)
        if unknown.any():
            raise ValueError(
                f"sample {int(unknown.nonzero()[0])} of the batch has no cached teacher logits: with cache_teacher, "
                "every epoch must have the same samples"
            )
        return logits

    def _key(self, recording: Tensor, start: Tensor) -> Tensor:
        return torch.add(start, recording, alpha=self._span)


def _position(metadata: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return recording and start of each sample, int64 `[B]`; an index is a start in a single recording."""
    if "index" in metadata:
        return torch.zeros_like(metadata["index"]), metadata["index"]
    if "recording" in metadata and "start" in metadata:
        return metadata["recording"], metadata["start"]
    raise ValueError(
        f"a batch has the metadata {sorted(metadata)}, but cache_teacher needs 'index', or 'recording' and 'start', to "
        "identify samples"
    )


class FeatureHints:
    """Train inner layers of a student to resemble inner layers of its teacher (after Romero et al. 2015, FitNets).

    The loss is the sum over the pairs of the mean squared difference of their features, `[B, C, ...]` or `[B, D]`. If
    the student has another number of channels, a learned convolution with kernel size 1 projects its features to the
    teacher's. It is created at the first batch, and its weights join the optimizer's first parameter group, whose
    learning rate and schedule they follow. Features are those at the end of the forward pass, so after an activation
    that works in place.

    Args:
        pairs: `{module of the student: module of the teacher}`, by their names in `named_modules()`.
        student: the network to train.
        teacher: the network to learn from.
        optimizer: optimizer of the student.

    Attributes:
        projections: one per pair, the identity if the widths agree; None before the first batch.

    Raises:
        ValueError: a module does not exist, or there is no pair.
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
        """Keep the features of every forward pass within the block."""
        handles = []
        for index, (student, teacher) in enumerate(self._modules):
            handles += [
                student.register_forward_hook(partial(_store_output, self._student, index)),
                teacher.register_forward_hook(partial(_store_output, self._teacher, index)),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._student.clear()
            self._teacher.clear()

    def loss(self) -> Tensor:
        """Return the loss of the last forward passes of both networks, a scalar.

        Raises:
            TypeError: the output of a module is not a tensor.
            ValueError: the features of a pair have different lengths.
        """
        features = [(_rows(self._student[i]), _rows(self._teacher[i]).detach()) for i in range(len(self._modules))]
        if self.projections is None:
            self._check_lengths(features)
            self._build([(s.shape[1], t.shape[1]) for s, t in features], features[0][0].device)
        projected = [(p(s), t) for p, (s, t) in zip(self.projections or (), features, strict=True)]
        return torch.stack([F.mse_loss(at_least_float32(s), at_least_float32(t)) for s, t in projected]).sum()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights of the projections, by index of their pair."""
        return {} if self.projections is None else self.projections.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Restore what `state_dict` returned; to be called before the optimizer's state is loaded.

        Raises:
            ValueError: the state has more pairs.
        """
        if not state:
            return
        if self.projections is None:
            widths = {int(name.split(".")[0]): (w.shape[1], w.shape[0]) for name, w in state.items()}
            if max(widths) >= len(self.pairs):
                raise ValueError(f"it has {max(widths) + 1} feature hints, but feature_hints has {len(self.pairs)}")
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
        for (student, teacher), (own, target) in zip(self.pairs.items(), features, strict=True):
            if own.shape[2] != target.shape[2]:
                raise ValueError(
                    f"feature hint {student!r}: {teacher!r}: the student's features have length {own.shape[2]}, the "
                    f"teacher's {target.shape[2]}; choose modules with features of the same length"
                )


def _submodule(network: nn.Module, name: str, role: str) -> nn.Module:
    modules = dict(unwrap(network).named_modules())
    if not name or name not in modules:
        raise ValueError(unknown_name(f"module of the {role}", name, [*filter(None, modules)]))
    return modules[name]


def _store_output(features: dict[int, Tensor], index: int, module: nn.Module, inputs: Any, output: Any) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(f"a feature hint needs a tensor, but {type(module).__name__} returns {type(output).__name__}")
    features[index] = output


def _rows(features: Tensor) -> Tensor:
    """Reshape features `[B, C, ...]` or `[B, D]` to `[B, C, N]`."""
    return features[:, :, None] if features.ndim == 2 else features.flatten(2)
