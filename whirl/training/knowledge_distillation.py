"""A small network learns from a large one (Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015).

The teacher's probabilities say which wrong classes are nearly right, which labels do not; a student that follows both
keeps more of the teacher's accuracy than labels alone would give it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whirl.augment.base import Augmentation
from whirl.engine.batch import Batch, as_batch, call_model
from whirl.engine.callbacks import Callback, Logs
from whirl.engine.device import resolve_device
from whirl.engine.monitor import Improvement
from whirl.engine.precision import FullPrecision
from whirl.engine.schedule import scheduler_unit
from whirl.losses.checks import check_non_negative, check_temperature
from whirl.losses.losses import smoothed_cross_entropy
from whirl.training.model_cost import count_parameters, latencies_s, size_bytes
from whirl.training.teacher import FeatureHints, TeacherLogits, at_least_float32, fingerprint, frozen, unshuffled
from whirl.training.trainer import History, Trainer

HARD_LOSSES = ("cross_entropy", "mse")


class DistillationLoss(nn.Module):
    """What the teacher says and what the labels say: α · T² · KL(teacher_T ‖ student_T) + (1 - α) · hard.

    Both distributions of the soft term are softmax(logits / T); the sum over classes is averaged over the batch. T²
    keeps its gradient as large as that of the hard term, whatever the temperature. Equal logits give 0. No gradient
    reaches the teacher's logits. `alpha=0` is the hard term to the bit, `alpha=1` the soft one. Half-precision logits
    are computed in float32.

    Args:
        temperature: T, > 0; the higher, the more the small probabilities count.
        alpha: share of the soft term, 0 to 1.
        hard_loss_type: `'cross_entropy'`, or `'mse'`: mean over samples and classes of (softmax(student) - target)².
        hard_criterion: mean loss of `(logits, targets)` in place of these, e.g. with class weights.

    Raises:
        TypeError: a number is none.
        ValueError: a number is out of range, or the type is unknown.

    Example:
        >>> criterion = DistillationLoss(temperature=2.0, alpha=0.5)
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * torch.tensor(3.0).log(), 0.0]])
        >>> # teacher_T = (3/4, 1/4), student_T = (1/2, 1/2): 4 · (3/4 ln 3/2 + 1/4 ln 1/2), and ln 2
        >>> criterion.components(student, teacher, torch.tensor([0]))
        {'soft_loss': tensor(0.5232), 'hard_loss': tensor(0.6931), 'total_loss': tensor(0.6082)}
    """

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

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        return self.components(student_logits, teacher_logits, targets)["total_loss"]

    def components(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The sum and its terms.

        Args:
            student_logits: `[B, K]`.
            teacher_logits: `[B, K]`.
            targets: labels int64 `[B]`, or probabilities float `[B, K]`.

        Returns:
            Scalars `soft_loss` (with its T²) and `hard_loss`, both before weighting, and `total_loss`.

        Raises:
            ValueError: shapes that do not fit.
        """
        soft, hard = self.soft_loss(student_logits, teacher_logits), self.hard_loss(student_logits, targets)
        # The ends are taken as they are: 0 times a term that is not finite would be NaN.
        total = hard if self.alpha == 0 else soft if self.alpha == 1 else torch.lerp(hard, soft, self.alpha)
        return {"soft_loss": soft, "hard_loss": hard, "total_loss": total}

    def soft_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """T² · KL(teacher_T ‖ student_T) of logits `[B, K]`, mean over the batch; >= 0."""
        if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2:
            raise ValueError(
                f"the student's logits have the shape {list(student_logits.shape)} and the teacher's "
                f"{list(teacher_logits.shape)}, expected [B, K] for both"
            )
        student = F.log_softmax(at_least_float32(student_logits) / self.temperature, dim=1)
        teacher = F.log_softmax(at_least_float32(teacher_logits.detach()) / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)

    def hard_loss(self, student_logits: Tensor, targets: Tensor) -> Tensor:
        """The labels' term, for logits `[B, K]` and labels `[B]` or probabilities `[B, K]`."""
        if self.hard_criterion is not None:
            return self.hard_criterion(student_logits, targets)
        if self.hard_loss_type == "cross_entropy":
            return smoothed_cross_entropy(student_logits, targets, smoothing=0.0)
        probabilities = at_least_float32(student_logits).softmax(dim=1)
        if not targets.is_floating_point():
            targets = F.one_hot(targets, probabilities.shape[1])
        return F.mse_loss(probabilities, targets.to(probabilities.dtype))


class DistillationTrainer(Trainer):
    """Trains a student on its teacher's logits and on labels.

    Loaders may be given to the constructor, for `fit`, or to each call. While the student trains, the teacher is in
    evaluation mode and without gradients; after each epoch it has its modes and `requires_grad` back, but stays on
    `device`. Student and teacher see the same augmented batch.

    Validation asks the student alone: `val_loss` is the hard term, so it can be held against that of a plain training,
    and against `train_hard_loss`; `train_loss` is the sum. The student of the lowest `val_loss` is kept (checkpoints
    hold it too) and `restore_best` puts it in place. Training itself ends with the last weights, as that of `Trainer`
    does, so that it can go on from there. With `alpha=0` it is `Trainer`, to the bit. A checkpoint knows its teacher:
    another one is refused.

    Args:
        teacher_model: `[B, C, T]` to logits `[B, K]`.
        student_model: the same, to be trained.
        criterion: None is `DistillationLoss()`.
        optimizer: of the student; None is AdamW with a learning rate of 1e-3.
        device: see `Trainer`, as for every argument not named here; gradients are clipped at 1 as there.
        cache_teacher: the training data are the same in every epoch, so ask the teacher once and keep its logits
            (4 · N · K bytes on the device). Batches then need the metadata `"index"`, or `"recording"` and `"start"` as
            windows have them.
        feature_hints: `{module of the student: module of the teacher}`, by name: layers whose features should be alike
            as well (`FeatureHints`).
        hint_weight: weight of that term, >= 0.

    Attributes:
        teacher: the teacher.
        hints: the `FeatureHints`, or None.

    Raises:
        TypeError: the criterion is no `DistillationLoss`.
        ValueError: teacher and student are one network, the optimizer would train the teacher, no module has a hint's
            name, or `cache_teacher` is asked for with augmentation or with hints, which need the teacher in every step.

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
        gradient_accumulation_steps: int = 1,
        max_grad_norm: float | None = 1.0,
        mixed_precision: bool | str | FullPrecision = False,
        lr_scheduler: Any = None,
        checkpoint_dir: str | Path | None = None,
        augmentation: Augmentation | Callable[..., Any] | None = None,
        checkpoint_every: int | str | None = None,
        on_nonfinite: str | None = "raise",
        max_skipped: int = 10,
        cache_teacher: bool = False,
        feature_hints: Mapping[str, str] | None = None,
        hint_weight: float = 1.0,
    ) -> None:
        criterion = DistillationLoss() if criterion is None else criterion
        if not isinstance(criterion, DistillationLoss):
            raise TypeError(f"criterion is a {type(criterion).__name__}, expected a DistillationLoss")
        if teacher_model is student_model:
            raise ValueError("teacher and student are the same network; give the student one of its own")
        _check_cacheable(cache_teacher, augmentation, feature_hints)
        self._best = _BestStudent()
        super().__init__(
            student_model,
            train_loader,
            val_loader,
            optimizer,
            criterion,
            device,
            [self._best, *(callbacks or [])],
            gradient_accumulation_steps,
            max_grad_norm,
            mixed_precision,
            lr_scheduler=lr_scheduler,
            checkpoint_dir=checkpoint_dir,
            augmentation=augmentation,
            checkpoint_every=checkpoint_every,
            on_nonfinite=on_nonfinite,
            max_skipped=max_skipped,
        )
        _check_teacher_not_optimized(teacher_model, self.optimizer)
        self.teacher = teacher_model.to(self.device)
        self.cache_teacher = cache_teacher
        self.hint_weight = check_non_negative(hint_weight, "hint_weight")
        self.hints = None
        if feature_hints is not None:
            self.hints = FeatureHints(feature_hints, self.model, self.teacher, self.optimizer)
        self._known: TeacherLogits | None = None
        self._known_of: Iterable[Any] | None = None
        self._teacher_kind = f"{type(self.teacher).__name__} {fingerprint(self.teacher)}"

    def train_epoch(self, train_loader: Iterable[Any] | None = None, epoch: int | None = None) -> dict[str, float]:
        """One pass over the training data.

        Args:
            train_loader: becomes the trainer's; None keeps the one there is.
            epoch: which pass over the data this is, from 0, for samplers that shuffle by it; None counts on.

        Returns:
            Means over the samples: `loss`, `accuracy` (a fraction), `soft_loss`, `hard_loss`, and `hint_loss` with
            hints.

        Raises:
            ValueError: samples cannot be told apart, though the teacher's logits should be kept.
        """
        if train_loader is not None:
            self.train_loader = train_loader
        if epoch is not None:
            self._passes = epoch
        with frozen(self.teacher), nullcontext() if self.hints is None else self.hints.watching():
            if self.cache_teacher and self._known_of is not self.train_loader:
                self._cache_teacher_logits()
            return super().train_epoch()

    def evaluate(self, val_loader: Iterable[Any]) -> dict[str, float]:
        """The student on other data; the trainer's own validation data stay what they are.

        Returns:
            Means over the samples: `loss` (the hard term) and `accuracy` (a fraction).
        """
        kept, self.val_loader = self.val_loader, val_loader
        try:
            return self.validate_epoch()
        finally:
            self.val_loader = kept

    def train(
        self,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None,
        epochs: int,
        scheduler: Any = None,
        *,
        resume_from: str | Path | None = None,
    ) -> History:
        """`fit` with these loaders, which become the trainer's.

        Args:
            train_loader: training data.
            val_loader: validation data; None leaves validation out.
            epochs: epochs to run, >= 0.
            scheduler: of the learning rate, see `Trainer`, if the trainer has no other; None keeps the one there is.
            resume_from: a checkpoint of an interrupted run, which is finished up to `epochs` in all.

        Returns:
            The history: one list per logged name, one number an epoch.

        Raises:
            ValueError: the trainer has another lr_scheduler already.
        """
        if scheduler is not None and self.lr_scheduler not in (None, scheduler):
            raise ValueError("train got a scheduler, but the trainer has an lr_scheduler already")
        self.train_loader, self.val_loader = train_loader, val_loader
        if scheduler is not None:
            self.lr_scheduler, self._schedule_unit = scheduler, scheduler_unit(scheduler)
        return self.fit(epochs, resume_from)

    def restore_best(self) -> float:
        """Put the student of the lowest validation loss in place.

        Returns:
            That loss.

        Raises:
            ValueError: no epoch has been validated.
        """
        if self._best.weights is None:
            raise ValueError("no student to restore: no epoch has been validated")
        self.model.load_state_dict(self._best.weights)
        return self._best.improvement.best

    def compute_loss(
        self, outputs: Tensor, targets: Tensor, signal: Tensor, metadata: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and in training its terms, detached."""
        if not self.model.training:
            return self.criterion.hard_loss(outputs, targets), {}
        teacher_logits = (
            self._teacher_forward(Batch(signal, targets, metadata)) if self._known is None else self._known(metadata)
        )
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
            raise ValueError("it was trained with feature_hints, here there are none")
        if self.hints is not None:
            self.hints.load_state_dict(state["hints"], self.device)
        super().load_state_dict(state)

    def _kinds(self) -> dict[str, str]:
        return super()._kinds() | {"teacher": self._teacher_kind}

    def _teacher_forward(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            return call_model(self.teacher, batch)

    def _cache_teacher_logits(self) -> None:
        def ask(batch: Batch) -> Tensor:
            with self.precision.context():
                return self._teacher_forward(batch).float()

        self._known = TeacherLogits(map(self.prepare_batch, unshuffled(self.train_loader)), ask)
        self._known_of = self.train_loader


class _BestStudent(Callback):
    """Keeps the weights of the lowest validation loss."""

    def __init__(self) -> None:
        self.improvement = Improvement("val_loss")
        self.weights: dict[str, Tensor] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs and "val_loss" in logs and self.improvement.update(logs):
            self.weights = {name: tensor.detach().clone() for name, tensor in self.trainer.model.state_dict().items()}

    def state_dict(self) -> Logs:
        return {"improvement": self.improvement.state_dict(), "weights": self.weights}

    def load_state_dict(self, state: Logs) -> None:
        self.improvement.load_state_dict(state["improvement"])
        self.weights = state["weights"]


def _check_cacheable(cache_teacher: bool, augmentation: Any, feature_hints: Any) -> None:
    if cache_teacher and augmentation is not None:
        raise ValueError("cache_teacher needs the same inputs in every epoch, but augmentation changes them")
    if cache_teacher and feature_hints is not None:
        raise ValueError("cache_teacher keeps logits only, but feature_hints need the teacher in every step")


def _check_teacher_not_optimized(teacher: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    mine = next((name for name, parameter in teacher.named_parameters() if id(parameter) in trained), None)
    if mine is not None:
        raise ValueError(f"the optimizer holds the teacher's {mine!r}; a teacher is not trained")


def compare_teacher_student(
    teacher: nn.Module,
    student: nn.Module,
    test_loader: Iterable[Any],
    device: str | torch.device = "cpu",
    *,
    measure_cost: bool = False,
) -> dict[str, float]:
    """How much of its teacher a student has kept, and at what price.

    Args:
        teacher: `[B, C, T]` to logits `[B, K]`; it is moved to `device` and has its modes back afterwards.
        student: the same.
        test_loader: batches as of `Trainer`; soft targets count by their argmax.
        device: where to compute.
        measure_cost: time both networks on one sample, too, and say how large their files are.

    Returns:
        `teacher_accuracy` and `student_accuracy` (fractions), `accuracy_gap` (teacher minus student), `agreement`
        (fraction of equal predictions), `teacher_params`, `student_params` and `compression_ratio` (of parameters).
        With `measure_cost` also `teacher_latency_s` and `student_latency_s` (median for one sample, the two taking
        turns), `speedup`, `teacher_size_bytes` and `student_size_bytes`.

    Raises:
        ValueError: the loader yields no batch, or a network has no parameters.

    Example:
        >>> teacher, student = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 2)), nn.Sequential(
        ...     nn.Flatten(), nn.Linear(8, 2))
        >>> batch = (torch.randn(4, 1, 8), torch.tensor([0, 1, 0, 1]))
        >>> compare_teacher_student(teacher, student, [batch], "cpu")["compression_ratio"]  # (72 + 18) / 18
        5.0
    """
    device = resolve_device(device)
    with frozen(teacher.to(device), student.to(device)), torch.inference_mode():
        hits, n_samples, batch = _count_hits(teacher, student, test_loader, device)
        cost = _cost(teacher, student, batch, device) if measure_cost else {}
    teacher_accuracy, student_accuracy, agreement = (hits / n_samples).tolist()
    teacher_params, student_params = count_parameters(teacher), count_parameters(student)
    if not (teacher_params and student_params):
        raise ValueError(f"teacher and student have {teacher_params} and {student_params} parameters, expected some")
    return {
        "teacher_accuracy": teacher_accuracy,
        "student_accuracy": student_accuracy,
        "accuracy_gap": teacher_accuracy - student_accuracy,
        "agreement": agreement,
        "teacher_params": teacher_params,
        "student_params": student_params,
        "compression_ratio": teacher_params / student_params,
        **cost,
    }


def _count_hits(
    teacher: nn.Module, student: nn.Module, loader: Iterable[Any], device: torch.device
) -> tuple[Tensor, int, Batch]:
    """Right answers of teacher and student and answers they share `[3]`, float64; samples; the last batch."""
    hits, n_samples, batch = torch.zeros(3, dtype=torch.int64, device=device), 0, None
    for batch in (as_batch(batch, device) for batch in loader):
        labels = batch.targets.argmax(1) if batch.targets.ndim > 1 else batch.targets
        teacher_predicted, student_predicted = (
            call_model(teacher, batch).argmax(1),
            call_model(student, batch).argmax(1),
        )
        hits += torch.stack(
            [teacher_predicted == labels, student_predicted == labels, teacher_predicted == student_predicted]
        ).sum(1)
        n_samples += len(labels)
    if batch is None:
        raise ValueError("test_loader yielded no batch")
    return hits.cpu().double(), n_samples, batch


def _cost(teacher: nn.Module, student: nn.Module, batch: Batch, device: torch.device) -> dict[str, float]:
    one = Batch(batch.signals[:1], batch.targets[:1], {name: value[:1] for name, value in batch.metadata.items()})
    teacher_s, student_s = latencies_s([lambda: call_model(teacher, one), lambda: call_model(student, one)], device)
    return {
        "teacher_latency_s": teacher_s,
        "student_latency_s": student_s,
        "speedup": teacher_s / student_s,
        "teacher_size_bytes": size_bytes(teacher),
        "student_size_bytes": size_bytes(student),
    }
