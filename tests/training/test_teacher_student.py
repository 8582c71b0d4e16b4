"""Comparison of teacher and student, and measurement of latencies."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whirl.models.registry import create_model
from whirl.training import model_cost, teacher_student
from whirl.training.knowledge_distillation import compare_teacher_student


def test_compare_by_hand():
    class Fixed(nn.Module):
        def __init__(self, answers, n_parameters):
            super().__init__()
            self.register_buffer("answers", torch.tensor(answers))
            self.weight = nn.Parameter(torch.zeros(n_parameters))

        def forward(self, signals):
            return F.one_hot(self.answers[signals[:, 0, 0].long()], 3).float()

    teacher, student = Fixed([0, 1, 2, 2, 0], 40), Fixed([0, 1, 2, 0, 0], 10)
    student.train()
    signals, targets = torch.arange(5.0).reshape(5, 1, 1), torch.tensor([0, 1, 2, 2, 2])
    batches = [(signals[:3], targets[:3]), (signals[3:], F.one_hot(targets[3:], 3).float())]
    found = compare_teacher_student(teacher, student, batches, "cpu")
    assert found == {
        "teacher_accuracy": 0.8, "student_accuracy": 0.6, "accuracy_gap": pytest.approx(0.2), "agreement": 0.8,
        "teacher_params": 40, "student_params": 10, "compression_ratio": 4.0,
    }  # fmt: skip
    assert student.training
    assert student.weight.requires_grad


def test_measured_cost(monkeypatch):
    monkeypatch.setattr(teacher_student, "latencies_s", lambda calls, device: [call().numel() * 0.5 for call in calls])
    teacher, student = create_model("resnet18_1d", 3), create_model("resnet18_1d", 3, width=0.125)
    batch = (torch.randn(2, 1, 1024), torch.tensor([0, 1]))
    found = compare_teacher_student(teacher, student, [batch], "cpu", measure_cost=True)
    assert found["teacher_latency_s"] == found["student_latency_s"] == 1.5  # logits [1, 3]: one sample is timed
    assert found["speedup"] == 1.0
    weights = 4 * found["teacher_params"]
    assert weights < found["teacher_size_bytes"] < 1.1 * weights
    assert found["student_size_bytes"] < found["teacher_size_bytes"] / 20


def test_latencies_are_medians_of_calls_in_turns(monkeypatch):
    now, order = 0.0, []

    def call(name, times):
        def run():
            nonlocal now
            order.append(name)
            now += next(times)

        return run

    slow, fast = itertools.cycle([1.0, 3.0, 5.0]), itertools.repeat(0.25)
    monkeypatch.setattr(model_cost.time, "perf_counter", lambda: now)
    assert model_cost.latencies_s([call("slow", slow), call("fast", fast)]) == [3.0, 0.25]
    timed = order[2 * model_cost.WARM_UP :]
    assert timed == ["slow", "fast"] * model_cost.ROUNDS


@pytest.mark.parametrize(
    ("n_outputs", "targets", "message"),
    [
        (1, torch.zeros(4, dtype=torch.int64), "outputs have shape .4, 1., expected logits"),
        (1, torch.zeros(4, 1), "neither classes"),
        (3, torch.ones(4, 3), "neither classes"),
        (3, torch.full((4,), -100), "no labeled sample"),
    ],
)
def test_compares_networks_for_classes_only(n_outputs, targets, message):
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, n_outputs))
    with pytest.raises(ValueError, match=message):
        compare_teacher_student(network, network, [(torch.randn(4, 1, 8), targets)])
