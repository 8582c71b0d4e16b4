"""Compare a student with its teacher: accuracy, agreement, size and speed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from whirl.engine.batch import Batch, as_batch, call_model
from whirl.engine.device import resolve_device
from whirl.metrics import rows_are_shares
from whirl.training.model_cost import count_parameters, latencies_s, size_bytes
from whirl.training.teacher import frozen


def compare_teacher_student(
    teacher: nn.Module,
    student: nn.Module,
    test_loader: Iterable[Any],
    device: str | torch.device = "cpu",
    *,
    measure_cost: bool = False,
) -> dict[str, float]:
    """Compute how much of its teacher's accuracy a student keeps, and at what cost.

    Args:
        teacher: network, `[B, C, T]` to logits `[B, K]`; it is moved to `device`; its modes are restored.
        student: the same.
        test_loader: batches as for `Trainer`; soft targets count as their largest entry, and samples with a negative
            label do not count.
        device: where to compute.
        measure_cost: also time both networks on one sample and measure the size of their files.

    Returns:
        `teacher_accuracy` and `student_accuracy` (fractions), `accuracy_gap` (teacher minus student), `agreement`
        (fraction of equal predictions), `teacher_params`, `student_params` and `compression_ratio` (of parameters).
        With `measure_cost` also `teacher_latency_s` and `student_latency_s` (median for one sample, measured in turns),
        `speedup`, `teacher_size_bytes` and `student_size_bytes`.

    Raises:
        ValueError: the loader yields no labeled sample, outputs or targets are not those of classes, or a network has
            no parameters.

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
        raise ValueError(
            f"teacher and student have {teacher_params} and {student_params} parameters, expected at least one each"
        )
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
    """Count correct predictions of teacher and student and equal predictions.

    Returns:
        The three counts as float64 `[3]`, the number of samples, and the last batch.
    """
    hits, n_samples, batch = torch.zeros(3, dtype=torch.int64, device=device), 0, None
    for batch in (as_batch(batch, device) for batch in loader):
        labels = _labels(batch.targets)
        teacher_pred, student_pred = (_predicted(call_model(network, batch)) for network in (teacher, student))
        correct = torch.stack([teacher_pred == labels, student_pred == labels, teacher_pred == student_pred])
        hits += correct[:, labels >= 0].sum(1)
        n_samples += int((labels >= 0).sum())
    if batch is None:
        raise ValueError("test_loader yielded no batch")
    if not n_samples:
        raise ValueError("test_loader yielded no labeled sample")
    return hits.cpu().double(), n_samples, batch


def _labels(targets: Tensor) -> Tensor:
    """Return the class of each sample, `[B]`, negative if unlabeled."""
    if targets.ndim == 1:
        return targets
    if targets.ndim != 2 or targets.shape[1] < 2 or not rows_are_shares(targets).all():
        raise ValueError(
            f"targets {list(targets.shape)} are neither classes [B] nor shares of classes [B, K] that sum to 1; only "
            "networks for classes are compared"
        )
    return targets.argmax(1)


def _predicted(logits: Tensor) -> Tensor:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"outputs have shape {list(logits.shape)}, expected logits [B, K] of at least two classes")
    return logits.argmax(1)


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
