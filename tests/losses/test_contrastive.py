import itertools
import math
import subprocess
import sys

import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import normalize

from whirl.losses.contrastive import supervised_contrastive_loss


def batch(n=40, dim=7, n_classes=5, dtype=torch.float64):
    """Random features and labels; the last anchor has no positive."""
    generator = torch.Generator().manual_seed(n)
    labels = torch.randint(n_classes, (n,), generator=generator)
    labels[-1] = -9
    return torch.randn(n, dim, generator=generator, dtype=dtype).requires_grad_(), labels


def value_and_grad(loss, features):
    return loss.detach(), torch.autograd.grad(loss, features)[0]


def assert_same_value_and_grad(loss, reference, features, tolerance=1e-10):
    for actual, expected in zip(value_and_grad(loss, features), value_and_grad(reference, features), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_value_and_gradient_match_pytorch_metric_learning(temperature):
    features, labels = batch()
    assert_same_value_and_grad(
        supervised_contrastive_loss(features, labels, temperature), SupConLoss(temperature)(features, labels), features
    )


def naive_losses(features, labels, temperature):
    z = normalize(features, dim=1)
    losses = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        denominator = torch.logsumexp(torch.stack([z[i] @ z[a] / temperature for a in others]), 0)
        terms = [denominator - z[i] @ z[p] / temperature for p in positives]
        losses.append(torch.stack(terms).mean() if terms else z.new_zeros(()))
    return torch.stack(losses)


@pytest.mark.parametrize("temperature", [0.003, 0.5])  # at 0.003 exp(-2 / T) is 0 even in float64
def test_every_anchor_matches_loop_over_pairs(temperature):
    features, labels = batch(16, n_classes=3)
    losses = supervised_contrastive_loss(features, labels, temperature, reduction="none")
    expected = naive_losses(features, labels, temperature)
    weights = torch.linspace(-1, 2, 16, dtype=torch.float64)
    assert_same_value_and_grad((losses * weights).sum(), (expected * weights).sum(), features)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-10)
    total = supervised_contrastive_loss(features, labels, temperature, reduction="sum")
    mean = supervised_contrastive_loss(features, labels, temperature)
    assert total.item() == pytest.approx(expected.sum().item(), abs=1e-10)
    assert mean.item() == pytest.approx(expected.sum().item() / (expected > 0).sum().item(), abs=1e-10)


def test_three_vectors_match_hand_calculation():
    features = torch.tensor([[3.0, 0.0], [0.0, 0.5], [-2.0, 0.0]], dtype=torch.float64)
    losses = supervised_contrastive_loss(features, torch.tensor([0, 0, 1]), temperature=0.5, reduction="none")
    # cosine similarities: (1, 2) 0, (1, 3) -1, (2, 3) 0; divided by 0.5: 0, -2, 0
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(2), 0])


def test_views_count_as_rows():
    features, labels = batch(24)
    views = features.view(8, 3, 7)
    flat = supervised_contrastive_loss(features, labels[:8].repeat_interleave(3), reduction="none")
    assert torch.equal(supervised_contrastive_loss(views, labels[:8], reduction="none"), flat.view(8, 3))
    assert_same_value_and_grad(supervised_contrastive_loss(views, labels[:8]), flat.mean(), features)


def test_high_temperature_limit_is_uniform_over_other_samples():
    features, labels = batch()
    losses = supervised_contrastive_loss(features, labels, temperature=1e13, reduction="none")
    assert losses[:-1].tolist() == pytest.approx([math.log(len(labels) - 1)] * (len(labels) - 1))


def test_is_invariant_to_order_scale_and_label_values():
    features, labels = batch()
    order = torch.randperm(len(labels))
    scales = torch.logspace(-300, 300, len(labels), dtype=torch.float64).unsqueeze(1)  # their squares are 0 and inf
    expected = supervised_contrastive_loss(features, labels, reduction="none")
    renamed = 1000 - 7 * labels.to(torch.int32)
    losses = supervised_contrastive_loss((features * scales)[order], renamed[order], reduction="none")
    torch.testing.assert_close(losses, expected[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 4), (6, 4), (6, 1, 4)])
def test_loss_and_gradient_are_zero_without_positives(shape):
    features = torch.randn(shape, requires_grad=True)
    value, grad = value_and_grad(supervised_contrastive_loss(features, torch.arange(shape[0])), features)
    assert value == 0
    assert torch.equal(grad, torch.zeros(shape))


def test_single_class_has_a_loss():
    features, _ = batch(6)
    labels = torch.zeros(6, dtype=torch.int64)
    assert_same_value_and_grad(
        supervised_contrastive_loss(features, labels), naive_losses(features, labels, 0.1).mean(), features
    )


def test_zero_vectors_count_as_orthogonal():
    features = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    losses = supervised_contrastive_loss(features, torch.tensor([0, 0, 0]), reduction="none")
    assert losses.tolist() == pytest.approx([math.log(2)] * 3)
    assert torch.autograd.grad(losses.sum(), features)[0].abs().max() < 100


def test_gradcheck():
    features, labels = batch(12, dim=3, n_classes=3)
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(lambda x, r=reduction: supervised_contrastive_loss(x, labels, 0.2, r), features)


def test_second_derivatives_pass_gradgradcheck():
    features, labels = batch(n=8, dim=3, n_classes=3)
    assert torch.autograd.gradgradcheck(lambda x: supervised_contrastive_loss(x, labels, 0.5), features)


def test_gradient_of_torch_func_matches_autograd():
    features, labels = batch()
    gradient = torch.func.grad(lambda x: supervised_contrastive_loss(x, labels))(features.detach())
    torch.testing.assert_close(gradient, value_and_grad(supervised_contrastive_loss(features, labels), features)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    features, labels = batch(dtype=dtype)
    exact = features.detach().float().requires_grad_()
    expected, expected_grad = value_and_grad(supervised_contrastive_loss(exact, labels), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # including the backward pass
        value, grad = value_and_grad(supervised_contrastive_loss(features, labels), features)
        _, exact_grad = value_and_grad(supervised_contrastive_loss(exact, labels), exact)
    assert (value.dtype, grad.dtype) == (torch.float32, dtype)
    assert value == expected
    assert torch.equal(exact_grad, expected_grad)
    torch.testing.assert_close(grad, expected_grad.to(dtype))


def test_does_not_modify_features_and_supports_retain_graph():
    features, labels = batch()
    before = features.detach().clone()
    loss = supervised_contrastive_loss(features, labels)
    first = torch.autograd.grad(loss, features, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, features)[0])
    assert torch.equal(features, before)


def peak_bytes(run):
    """Return the peak memory that torch's CPU allocator holds during `run`, relative to its start."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def test_memory_is_one_matrix_of_pairs():
    n = 1024
    features, labels = batch(n, dim=16, dtype=torch.float32)
    matrix = 4 * n * n
    assert peak_bytes(lambda: features @ features.T) == matrix
    peak = peak_bytes(lambda: torch.autograd.grad(supervised_contrastive_loss(features, labels), features))
    assert matrix < peak < 1.25 * matrix


def test_host_never_reads_data():
    with FakeTensorMode():  # tensors without data; reading a value raises
        features, labels = torch.randn(8, 2, 4, requires_grad=True), torch.zeros(8, dtype=torch.int64)
        value, grad = value_and_grad(supervised_contrastive_loss(features, labels), features)
        assert (value.shape, grad.shape) == ((), (8, 2, 4))
        with pytest.raises(DataDependentOutputException):
            value.item()


@pytest.mark.gpu
def test_step_on_gpu_does_not_synchronize():
    features, labels = batch()
    expected, expected_grad = value_and_grad(supervised_contrastive_loss(features, labels), features)
    on_device, labels = features.detach().cuda().requires_grad_(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value, grad = value_and_grad(supervised_contrastive_loss(on_device, labels), on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close((value.cpu(), grad.cpu()), (expected, expected_grad))


RANK = """
import sys
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from whirl.losses.contrastive import supervised_contrastive_loss

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
inputs, labels, weight = torch.load(f"{folder}/batch.pt")
rows = slice(0, 5) if rank == 0 else slice(5, 8)
results = {}
for name in ("mean", "sum", "none"):
    network = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
    network.weight.data.copy_(weight)
    parallel = DistributedDataParallel(network)
    loss = supervised_contrastive_loss(parallel(inputs[rows]), labels[rows], reduction=name)
    (loss.sum() if name == "none" else loss).backward()
    results[name] = loss.detach(), network.weight.grad
torch.save(results, f"{folder}/rank{rank}.pt")
dist.destroy_process_group()
"""


def test_ranks_match_one_process_on_concatenated_batch(tmp_path):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 2, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    # the ranks have 5 and 3 samples; some classes are on one rank, some on both
    labels = torch.tensor([0, 1, 2, 0, 3, 1, 1, 4])
    torch.save((inputs, labels, weight.detach()), tmp_path / "batch.pt")
    command = [sys.executable, "-c", RANK]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE) for rank in range(2)]
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in ranks:
            process.kill()
    values_0, values_1 = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for name in ("mean", "sum", "none"):
        loss = supervised_contrastive_loss(inputs @ weight.T, labels, reduction=name)
        parts = [values_0[name][0], values_1[name][0]]
        joined = torch.cat(parts) if name == "none" else torch.stack(parts).mean()
        torch.testing.assert_close(joined, loss.detach(), rtol=0, atol=1e-12)
        expected = torch.autograd.grad(loss.sum() / (2 if name == "none" else 1), weight)[0]
        for values in (values_0, values_1):  # DistributedDataParallel averages gradients over the ranks
            torch.testing.assert_close(values[name][1], expected, rtol=0, atol=1e-12)


VALID = {"features": torch.ones(4, 3), "labels": torch.arange(4)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"temperature": 0}, ValueError, "temperature is 0, expected a finite number > 0"),
        ({"temperature": math.nan}, ValueError, "temperature is nan"),
        ({"temperature": math.inf}, ValueError, "temperature is inf"),
        ({"temperature": torch.tensor(0.1, requires_grad=True)}, TypeError, r"temperature is .*, expected a number"),
        ({"labels": [0, 1, 2, 3]}, TypeError, "labels are a list"),
        ({"reduction": "max"}, ValueError, "unknown reduction 'max'.* one of: none, mean, sum"),
        ({"features": torch.ones(4)}, ValueError, r"\(4,\), expected \[B, D\]"),
        ({"features": torch.ones(0, 3), "labels": torch.arange(0)}, ValueError, r"\(0, 3\), expected"),
        ({"features": torch.ones(4, 3, dtype=torch.int64)}, TypeError, r"torch.int64, expected a tensor of real"),
        ({"labels": torch.ones(4)}, TypeError, "torch.float32, expected a tensor of integers"),
        ({"labels": torch.arange(3)}, ValueError, r"\(3,\), expected one label per sample, \(4,\)"),
        ({"labels": torch.ones(4, 1, dtype=torch.int64)}, ValueError, r"\(4, 1\), expected one label per sample"),
    ],
    ids=[
        "zero temperature",
        "nan temperature",
        "infinite temperature",
        "tensor temperature",
        "list of labels",
        "unknown reduction",
        "1-d features",
        "empty features",
        "int features",
        "float labels",
        "too few labels",
        "2-d labels",
    ],
)
def test_rejects_invalid_arguments(change, error, message):
    with pytest.raises(error, match=message):
        supervised_contrastive_loss(**{**VALID, **change})
