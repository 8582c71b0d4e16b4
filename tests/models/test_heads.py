"""Outputs for compound faults, levels in an order, two classes with one logit, and numbers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whirl.engine.batch import Batch
from whirl.engine.wrappers import takes_metadata
from whirl.evaluation.export import export_onnx, export_program
from whirl.models.heads import (
    HEADS,
    CompoundFaults,
    OrdinalLevels,
    ScaledOutput,
    faults_of,
    membership,
    single_faults,
    with_head,
)
from whirl.models.registry import create_model

CLASSES = ["healthy", "ball", "inner_race", "inner_race+ball"]


def network(n_outputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, n_outputs))


class TakesMetadata(nn.Module):
    def forward(self, signals, metadata=None):
        return metadata["rpm"][:, None].expand(-1, 2)


def test_cross_entropy_over_all_combinations_is_binary_cross_entropy_of_the_faults():
    signals, labels = torch.randn(6, 1, 8), torch.tensor([0, 1, 2, 3, 3, 0])
    model = CompoundFaults(network(2), CLASSES)
    binary = F.binary_cross_entropy_with_logits(model.network(signals), membership(CLASSES)[labels], reduction="none")
    loss = F.cross_entropy(model(signals), labels).item()
    assert loss == pytest.approx(binary.sum(1).mean().item(), rel=1e-5)


def test_a_combination_without_training_data_follows_from_its_faults():
    signals = torch.zeros(60, 1, 8)
    labels = torch.arange(60) % 3
    signals[labels == 1, :, 0], signals[labels == 2, :, 1] = 3.0, 3.0
    model = CompoundFaults(network(2), CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(signals)[:, :3], labels).backward()
        optimizer.step()
    both = torch.zeros(1, 1, 8)
    both[..., :2] = 3.0
    assert model(both).argmax(1).item() == 3


def test_logits_of_compound_faults_are_not_rounded_by_autocast():
    model, signals = CompoundFaults(network(2), CLASSES), torch.randn(4, 1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(signals)
        single = model.network(signals).float()
    assert logits.dtype == torch.float32
    assert logits[:, 3].equal(single.sum(1))


def test_labels_may_be_written_in_any_order_but_only_one():
    assert faults_of("b + a") == faults_of("a+b") == ("a", "b")
    with pytest.raises(ValueError, match=r"'a\+b' and 'b\+a' name the same faults"):
        single_faults(["a+b", "b+a"])
    with pytest.raises(ValueError, match="no label names a fault"):
        single_faults(["healthy"])


def test_levels_are_probabilities_with_ordered_thresholds():
    model, signals = OrdinalLevels(network(1), 5), 30 * torch.randn(200, 1, 8)
    with torch.no_grad():
        model.gaps.fill_(-20.0)  # even so, every level keeps a probability above 0
        log_probabilities = model(signals)
    assert log_probabilities.isfinite().all()
    assert torch.allclose(log_probabilities.exp().sum(1), torch.ones(200), atol=1e-4)


@pytest.mark.parametrize("n_levels", [2, 3, 6])
def test_levels_follow_the_formula(n_levels):
    model, signals = OrdinalLevels(network(1), n_levels).double(), torch.randn(7, 1, 8).double()
    gaps = F.softplus(model.gaps.double()) + 1e-3
    thresholds = model.first + torch.cat([torch.zeros(1), gaps.cumsum(0)])
    at_most = torch.sigmoid(thresholds - model.network(signals))
    at_most = torch.cat([torch.zeros(7, 1), at_most, torch.ones(7, 1)], dim=1)
    assert torch.allclose(model(signals).exp().double(), at_most.diff(dim=1), atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: OrdinalLevels(network, 3),
        ScaledOutput,
        lambda network: CompoundFaults(network, ["healthy", "ball"]),
    ],
)
def test_networks_in_float64_are_not_rounded_to_float32(wrap):
    model = wrap(nn.Sequential(nn.Flatten(), nn.Linear(8, 1))).double()
    signals = torch.randn(4, 1, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, signals)


def test_levels_are_learned_in_their_order():
    levels = torch.arange(80) % 4
    signals = (levels + 0.1 * torch.randn(80))[:, None, None].expand(-1, 1, 8)
    model = OrdinalLevels(network(1), 4)
    optimizer = torch.optim.Adam(model.parameters(), 0.2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(signals), levels).backward()
        optimizer.step()
    assert (model(signals).argmax(1) == levels).double().mean() > 0.9


def test_metadata_reach_a_network_that_takes_them():
    model = CompoundFaults(TakesMetadata(), CLASSES)
    assert takes_metadata(model)
    assert not takes_metadata(CompoundFaults(network(2), CLASSES))
    assert model(torch.zeros(3, 1, 8), metadata={"rpm": torch.ones(3)}).shape == (3, 4)


@pytest.mark.parametrize(("task", "n_outputs"), [("multiclass", 4), ("multilabel", 2), ("ordinal", 1)])
def test_a_task_determines_the_outputs_of_the_network(task, n_outputs):
    model = with_head(task, CLASSES, network)
    assert model(torch.zeros(3, 1, 8)).shape == (3, 4)
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [n_outputs]


def test_cross_entropy_with_one_logit_is_binary_cross_entropy():
    signals, labels = torch.randn(6, 1, 8), torch.tensor([0, 1, 1, 0, 1, 0])
    model = with_head("binary", ["healthy", "wear"], network)
    logit = model.network(signals)[:, 0]
    expected = F.binary_cross_entropy_with_logits(logit, labels.float()).item()
    assert F.cross_entropy(model(signals), labels).item() == pytest.approx(expected, rel=1e-6)


def test_numbers_have_the_mean_and_deviation_of_the_training_targets():
    model = with_head("regression", ["days"], network)
    model.standardize(torch.tensor([100.0, 300.0, 300.0, 100.0]))
    signals = torch.randn(6, 1, 8)
    assert torch.allclose(model(signals), 200 + 100 * model.network(signals))
    copied = with_head("regression", ["days"], network)
    copied.load_state_dict(model.state_dict())
    assert torch.equal(copied(signals), model(signals))
    with pytest.raises(ValueError, match="all training targets are 5"):
        model.standardize(torch.full((3,), 5.0))


@pytest.mark.slow
@pytest.mark.parametrize("task", HEADS)
def test_exported_graphs_of_all_tasks_give_the_outputs_of_the_network(task, tmp_path):
    classes = {"binary": CLASSES[:2], "regression": ["severity"]}.get(task, CLASSES)
    torch.manual_seed(0)
    model = with_head(task, classes, lambda n_outputs: create_model("wdcnn", n_outputs, 1)).eval()
    if task == "regression":
        model.standardize(torch.tensor([2.0, 7.0]))
    batch = Batch(torch.randn(14, 1, 1024), torch.zeros(14, dtype=torch.int64), {})
    program_file, onnx_file = tmp_path / "model.pt2", tmp_path / "model.onnx"
    export_program(model, batch, program_file, {})
    export_onnx(model, batch, onnx_file, {})
    expected = model(batch.signals)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(onnx_file))
    (found,) = session.run(None, {session.get_inputs()[0].name: batch.signals.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
    program = torch.export.load(program_file).module()
    torch.testing.assert_close(program(batch.signals), expected, rtol=1e-4, atol=1e-4)
