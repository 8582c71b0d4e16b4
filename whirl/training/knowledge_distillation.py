"""Knowledge distillation: train a small network on the outputs of a large one.

The teacher's probabilities contain more than the labels do, namely which wrong classes are nearly right. A student that
follows both keeps more of the teacher's accuracy than one that is trained on labels alone (Hinton, Vinyals, Dean:
"Distilling the Knowledge in a Neural Network", 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whirl._display import format_attributes
from whirl._precision import at_least_float32
from whirl.callbacks.best_weights import BestWeights
from whirl.engine.batch import Batch, call_model
from whirl.engine.callbacks import Callback
from whirl.engine.objective import SAMPLE_WEIGHT, Objective
from whirl.losses.checks import check_non_negative, check_temperature
from whirl.losses.losses import smoothed_cross_entropy
from whirl.training.per_call import PerCallTrainer
from whirl.training.teacher import FeatureHints, TeacherLogits, fingerprint, frozen, unshuffled
from whirl.training.teacher_student import compare_teacher_student as compare_teacher_student
from whirl.training.trainer import History

HARD_LOSSES = ("cross_entropy", "mse")


class DistillationLoss(nn.Module):
    """Weighted sum of the divergence from the teacher and the loss of the labels.

    α · T² · KL(teacher_T ‖ student_T) + (1 - α) · hard, where both distributions of the soft term are
    softmax(logits / T), and the sum over classes is averaged over the batch. The factor T² keeps the gradient of the
    soft term as large as that of the hard term at any temperature. Equal logits give 0. No gradient reaches the
    teacher's logits. `alpha=0` is exactly the hard term, `alpha=1` exactly the soft one. Half-precision logits are
    computed in float32.

    Args:
        temperature: T, > 0; the higher, the more the small probabilities count.
        alpha: weight of the soft term, 0 to 1.
        hard_loss_type: `'cross_entropy'`, or `'mse'`: mean over samples and classes of (softmax(student) - target)².
        hard_criterion: replaces these by another mean loss of `(logits, targets)`, e.g. with class weights, or with
            `ignore_index`: windows without a label then follow the teacher only.

    Raises:
        TypeError: an argument is not a number.
        ValueError: a number is out of range, or the type is unknown.

    Example:
        >>> criterion = DistillationLoss(temperature=2.0, alpha=0.5)
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * torch.tensor(3.0).log(), 0.0]])
        >>> # teacher_T = (3/4, 1/4), student_T = (1/2, 1/2): 4 · (3/4 ln 3/2 + 1/4 ln 1/2), and ln 2
        >>> criterion.components(student, teacher, torch.tensor([0]))
        {'soft_loss': tensor(0.5232), 'hard_loss': tensor(0.6931), 'total_loss': tensor(0.6082)}
    """

    task = "multiclass"

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.7,
        hard_loss_type: str = "cross_entropy",
        *,
        hard_criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)
        if not check_non_negative(alpha, "alpha") <= 1:
            raise ValueError(f"alpha is {alpha!r}, expected a number from 0 to 1")
        if hard_loss_type not in HARD_LOSSES:
            raise ValueError(f"hard_loss_type is {hard_loss_type!r}, expected 'cross_entropy' or 'mse'")
        self.alpha = float(alpha)
        self.hard_loss_type = hard_loss_type
        self.hard_criterion = hard_criterion
        self.ignore_index: int | None = getattr(hard_criterion, "ignore_index", None)

    def extra_repr(self) -> str:
        return format_attributes(self, "temperature", "alpha", "hard_loss_type")

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        return self.components(student_logits, teacher_logits, targets)["total_loss"]

    def denominator(self, targets: Tensor) -> Tensor | None:
        """Return what the mean of `hard_criterion` divides by; None if it is the number of samples."""
        return None if self.hard_criterion is None else Objective(self.hard_criterion).denominator(targets)

    def components(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the weighted sum and its terms.

        Args:
            student_logits: `[B, K]`.
            teacher_logits: `[B, K]`.
            targets: labels int64 `[B]`, or probabilities float `[B, K]`.

        Returns:
            Scalars `soft_loss` (including T²) and `hard_loss`, both before weighting, and `total_loss`.

        Raises:
            ValueError: the shapes do not match.
        """
        soft, hard = self.soft_loss(student_logits, teacher_logits), self.hard_loss(student_logits, targets)
        # 0 times a term that is not finite would be NaN.
        total = hard if self.alpha == 0 else soft if self.alpha == 1 else torch.lerp(hard, soft, self.alpha)
        return {"soft_loss": soft, "hard_loss": hard, "total_loss": total}

    def soft_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return T² · KL(teacher_T ‖ student_T) of logits `[B, K]`, mean over the batch; >= 0.

        A class that the teacher excludes, by a logit of -inf, contributes nothing.
        """
        if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2:
            raise ValueError(
                f"student logits have shape {list(student_logits.shape)} and teacher logits "
                f"{list(teacher_logits.shape)}, expected [B, K] for both"
            )
        student = F.log_softmax(at_least_float32(student_logits) / self.temperature, dim=1)
        teacher = F.log_softmax(at_least_float32(teacher_logits.detach()) / self.temperature, dim=1)
        gaps = (teacher - student).masked_fill(teacher == -torch.inf, 0)  # lim p log p = 0: excluded classes
        return self.temperature**2 * (teacher.exp() * gaps).sum() / len(student)

    def hard_loss(self, student_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the labels, for logits `[B, K]` and labels `[B]` or probabilities `[B, K]`."""
        if self.hard_criterion is not None:
            return self.hard_criterion(student_logits, targets)
        if self.hard_loss_type == "cross_entropy":
            return smoothed_cross_entropy(student_logits, targets, smoothing=0.0)
        probabilities = at_least_float32(student_logits).softmax(dim=1)
        if not targets.is_floating_point():
            targets = F.one_hot(targets, probabilities.shape[1])
        return F.mse_loss(probabilities, targets.to(probabilities.dtype))


class DistillationTrainer(PerCallTrainer):
    """Train a student on the logits of its teacher and on labels.

    Loaders are given to the constructor, for `fit`, or to each call. While the student trains, the teacher is in
    evaluation mode and without gradients; after each epoch its modes and `requires_grad` are restored, but it stays on
    `device`. Student and teacher see the same augmented batch.

    Validation evaluates the student alone: `val_loss` is the hard term, so it can be compared with that of a training
    without teacher, and with `train_hard_loss`; `train_loss` is the weighted sum. The student with the lowest
    `val_loss` is kept (also in checkpoints), and `restore_best` puts it in place. Training itself ends with the last
    weights, like that of `Trainer`, so that it can be continued. With `alpha=0` the result is bit-identical to that of
    `Trainer`. A checkpoint can only be resumed with the same teacher.

    Args:
        teacher_model: network, `[B, C, T]` to logits `[B, K]`.
        student_model: the same, to be trained.
        criterion: None is `DistillationLoss()`.
        optimizer: optimizer of the student; None is AdamW with a learning rate of 1e-3.
        device: see `Trainer`, as for all arguments not listed here; gradients are clipped to norm 1 as there.
        cache_teacher: run the teacher once per sample and keep its logits (4 · N · K bytes on the device), if the
            training data are the same in every epoch. Batches then need the metadata `"index"`, or `"recording"` and
            `"start"` as windows have them.
        feature_hints: `{module of the student: module of the teacher}`, by name: layers whose features should be
            similar as well (`FeatureHints`).
        hint_weight: weight of that term, >= 0.
        **options: further keyword arguments of `Trainer`: `lr_scheduler`, `augmentation`, `checkpoint_dir`, ...

    Attributes:
        teacher: the teacher.
        hints: the `FeatureHints`, or None.

    Raises:
        TypeError: the criterion is not a `DistillationLoss`.
        ValueError: teacher and student are the same network, the optimizer would train the teacher, a module in
            `feature_hints` does not exist, or `cache_teacher` is combined with augmentation or hints, which need the
            teacher in every step.

    Example:
        >>> signals, targets = torch.randn(64, 1, 32), torch.arange(64) % 2
        >>> batch = (signals, targets, {"index": torch.arange(64)})
        >>> teacher, student = (nn.Sequential(nn.Flatten(), nn.Linear(32, 2)) for _ in range(2))
        >>> sgd = torch.optim.SGD(student.parameters(), lr=0.1)
        >>> trainer = DistillationTrainer(teacher, student, DistillationLoss(alpha=1.0), sgd, cache_teacher=True)
        >>> history = trainer.train([batch], [batch], epochs=20)
        >>> history["train_soft_loss"][-1] < history["train_soft_loss"][0]
        True
    """

    criterion: DistillationLoss

    def __init__(
        self,
        teacher_model: nn.Module,
        student_model: nn.Module,
        criterion: DistillationLoss | None,
        optimizer: torch.optim.Optimizer | None,
        device: str | torch.device = "cpu",
        *,
        train_loader: Iterable[Any] = (),
        val_loader: Iterable[Any] | None = None,
        callbacks: list[Callback | Callable[..., Any]] | None = None,
        cache_teacher: bool = False,
        feature_hints: Mapping[str, str] | None = None,
        hint_weight: float = 1.0,
        **options: Any,
    ) -> None:
        criterion = DistillationLoss() if criterion is None else criterion
        if not isinstance(criterion, DistillationLoss):
            raise TypeError(f"criterion is a {type(criterion).__name__}, expected a DistillationLoss")
        if teacher_model is student_model:
            raise ValueError("teacher_model and student_model are the same network, expected two")
        _check_cacheable(cache_teacher, options.get("augmentation"), feature_hints)
        _check_teacher_not_optimized(teacher_model, optimizer)
        if feature_hints is not None and options.get("compile"):
            raise ValueError("compile ignores the hooks that read the feature_hints: choose one of them")
        self._best = BestWeights()
        super().__init__(
            student_model,
            train_loader,
            val_loader,
            optimizer,
            criterion,
            device,
            [self._best, *(callbacks or [])],
            **options,
        )
        self.teacher = teacher_model.to(self.device)
        self.cache_teacher = cache_teacher
        self.hint_weight = check_non_negative(hint_weight, "hint_weight")
        self.hints = None
        if feature_hints is not None:
            self.hints = FeatureHints(feature_hints, self.model, self.teacher, self.optimizer)
        self._cached: TeacherLogits | None = None
        self._cached_loader: Iterable[Any] | None = None
        self.kinds["teacher"] = f"{type(self.teacher).__name__} {fingerprint(self.teacher)}"

    def train(
        self,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None,
        epochs: int,
        scheduler: Any = None,
        *,
        resume_from: str | Path | None = None,
    ) -> History:
        """Call `fit` with these loaders, which replace the trainer's own.

        Args:
            train_loader: training data.
            val_loader: validation data; None disables validation.
            epochs: epochs to run, >= 0.
            scheduler: learning-rate scheduler, see `Trainer`, if the trainer has none; None keeps the trainer's.
            resume_from: checkpoint of an interrupted run, which is continued up to `epochs` in total.

        Returns:
            The history: one list per logged name, one number per epoch.

        Raises:
            ValueError: the trainer has another scheduler, or the metadata do not identify the samples although the
                teacher's logits should be cached.
        """
        self.use_scheduler(scheduler)
        self.train_loader, self.val_loader = train_loader, val_loader
        return self.fit(epochs, resume_from)

    def restore_best(self) -> float:
        """Load the student with the lowest validation loss and return that loss.

        Raises:
            ValueError: no epoch has been validated.
        """
        if not self._best.restore():
            raise ValueError("there is no student to restore: no epoch has been validated")
        return self._best.improvement.best

    @contextmanager
    def epoch_context(self) -> Iterator[None]:
        """Freeze the teacher, watch the features of the hints, and fill the cache for a new loader."""
        with frozen(self.teacher), nullcontext() if self.hints is None else self.hints.watching():
            if self.cache_teacher and self._cached_loader is not self.train_loader:
                self._cache_teacher_logits()
            yield

    def compute_loss(
        self, outputs: Tensor, targets: Tensor, signal: Tensor, metadata: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and in training its detached terms `soft_loss`, `hard_loss` and `hint_loss` (with hints)."""
        if SAMPLE_WEIGHT in metadata:
            raise ValueError("distillation does not support sample_weight: leave it out, or balance the classes")
        if not self.model.training:
            return self.criterion.hard_loss(outputs, targets), {}
        if self._cached is None:
            teacher_logits = self._teacher_forward(Batch(signal, targets, metadata))
        else:
            teacher_logits = self._cached(metadata)
        parts = self.criterion.components(outputs, teacher_logits, targets)
        loss = parts.pop("total_loss")
        if self.hints is not None:
            parts["hint_loss"] = self.hints.loss()
            loss = torch.add(loss, parts["hint_loss"], alpha=self.hint_weight)
        return loss, {name: part.detach() for name, part in parts.items()}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"hints": {} if self.hints is None else self.hints.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if bool(state["hints"]) and self.hints is None:
            raise ValueError("it was trained with feature_hints, but feature_hints is None")
        if self.hints is not None:
            self.hints.load_state_dict(state["hints"], self.device)
        super().load_state_dict(state)

    def _teacher_forward(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            return call_model(self.teacher, batch)

    def _cache_teacher_logits(self) -> None:
        def run_teacher(batch: Batch) -> Tensor:
            with self.precision.context():
                return at_least_float32(self._teacher_forward(batch))

        self._cached = TeacherLogits(map(self.prepare_batch, unshuffled(self.train_loader)), run_teacher)
        self._cached_loader = self.train_loader


def _check_cacheable(cache_teacher: bool, augmentation: Any, feature_hints: Any) -> None:
    if cache_teacher and augmentation is not None:
        raise ValueError("cache_teacher needs the same inputs in every epoch, but augmentation changes them")
    if cache_teacher and feature_hints is not None:
        raise ValueError("cache_teacher keeps logits only, but feature_hints need the teacher in every step")


def _check_teacher_not_optimized(teacher: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    groups = getattr(optimizer, "param_groups", [])
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    name = next((name for name, parameter in teacher.named_parameters() if id(parameter) in trained), None)
    if name is not None:
        raise ValueError(f"the optimizer holds the teacher's parameter {name!r}: give it the student's parameters only")
