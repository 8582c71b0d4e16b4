import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.dsp.angular import to_orders
from whirl.engine.batch import Batch, call_model
from whirl.evaluation.prediction import predict_windows
from whirl.models.hybrid_pinn import HybridPINN, RunningStandardization
from whirl.models.order_cnn import OrderCNN
from whirl.models.registry import create_model, list_models

RATE_HZ, N_SAMPLES = 2048, 4096
NAMES = ["hybrid_pinn", "order_cnn"]


def network(name: str, num_classes: int = 3, in_channels: int = 1, **kwargs) -> nn.Module:
    if name == "order_cnn":
        kwargs = {"samples_per_revolution": 128, **kwargs}  # reference: 960 rpm
    return create_model(name, num_classes, in_channels, sampling_rate_hz=RATE_HZ, **kwargs)


def order_set(n: int, seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return windows with a line at 2X (class 0) or 3X (class 1); the speeds are random, so frequencies overlap."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    rpm = rng.uniform(1000, 3500, n)
    turns = rpm[:, None] / 60 * np.arange(N_SAMPLES) / RATE_HZ + rng.uniform(size=(n, 1))
    signals = np.sin(2 * np.pi * (2 + targets[:, None]) * turns) + 0.5 * rng.normal(size=turns.shape)
    return (
        torch.from_numpy(signals).float()[:, None],
        torch.from_numpy(targets),
        {"rpm": torch.from_numpy(rpm).float(), "recording": torch.arange(n)},
    )


def accuracy(model: nn.Module, keep_rpm: bool = True, n_epochs: int = 8) -> float:
    """Return the accuracy on unseen windows after a short training; both use the speeds only if `keep_rpm`."""
    torch.manual_seed(0)
    signals, targets, metadata = order_set(128, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(signals)).split(32):
            batch_metadata = {"rpm": metadata["rpm"][rows]} if keep_rpm else {}
            loss = F.cross_entropy(
                call_model(model, Batch(signals[rows], targets[rows], batch_metadata)), targets[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    signals, targets, metadata = order_set(128, seed=2)
    if not keep_rpm:
        del metadata["rpm"]
    predictions = predict_windows(model, [(signals, targets, metadata)])
    return float((predictions.predicted == predictions.targets).mean())


def test_networks_are_registered():
    assert set(NAMES) <= set(list_models())
    assert isinstance(network("hybrid_pinn"), HybridPINN)
    assert isinstance(network("order_cnn"), OrderCNN)


@pytest.mark.parametrize("backbone", ["cnn1d", "wdcnn"])
@pytest.mark.parametrize("in_channels", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_logits_with_and_without_speeds(name, in_channels, backbone):
    model = network(name, 5, in_channels, backbone=backbone)
    signals = torch.randn(4, in_channels, N_SAMPLES)
    rpm = torch.tensor([1000.0, torch.nan, 2000.0, 3456.0])
    for metadata in (None, {}, {"load": rpm}, {"rpm": rpm}, {"rpm": rpm * torch.nan}):
        logits = model(signals, metadata)
        assert logits.shape == (4, 5)
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_speed_equals_missing_speed_and_known_speed_has_effect(name):
    torch.manual_seed(0)
    model = network(name)
    signals, _, metadata = order_set(6, seed=0)
    model(signals, metadata)  # updates the running statistics
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.1)
    model.eval()
    rpm = metadata["rpm"].clone()
    rpm[::2] = torch.nan
    plain, mixed, known = model(signals), model(signals, {"rpm": rpm}), model(signals, metadata)
    torch.testing.assert_close(mixed[::2], plain[::2])
    torch.testing.assert_close(mixed[1::2], known[1::2])
    assert ((known - plain).abs().amax(1) > 1e-3).all()
    alone = torch.cat([model(signals[i : i + 1], {"rpm": rpm[i : i + 1]}) for i in range(6)])
    torch.testing.assert_close(alone, mixed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_all_weights_get_gradients_with_some_speeds_and_backbone_without(name):
    torch.manual_seed(0)
    signals, targets, metadata = order_set(8, seed=0)
    metadata["rpm"][::3] = torch.nan
    model = network(name)
    backbone = model.network if name == "order_cnn" else model.signal_branch
    for given, trained in ((metadata, model), (None, backbone)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(signals, given), targets)
        gradients = torch.autograd.grad(loss, list(trained.parameters()))  # pyright: ignore
        assert all(gradient.isfinite().all() and (gradient != 0).any() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_to_signals(name):
    model = network(name).eval()
    signals, _, metadata = order_set(4, seed=0)
    signals.requires_grad_()
    (gradient,) = torch.autograd.grad(model(signals, metadata)[:, 0].sum(), signals)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(-1) > 0).all()


def test_order_cnn_equals_backbone_on_resampled_signals():
    torch.manual_seed(0)
    model = network("order_cnn").eval()
    signals, _, metadata = order_set(4, seed=0)
    over_angle = to_orders(signals, metadata["rpm"], RATE_HZ, 128, N_SAMPLES)
    assert torch.equal(model(signals, metadata), model.network(over_angle))  # pyright: ignore
    assert torch.equal(model(signals), model.network(signals))  # pyright: ignore


def test_hybrid_evidence_depends_on_bearing():
    assert "whirl" in network("hybrid_pinn").evidence.names  # pyright: ignore
    assert "BPFO" in network("hybrid_pinn", bearing="6205").evidence.names  # pyright: ignore
    with pytest.raises(ValueError, match=r"unknown bearing 'ER16'; the table has ER-16K"):
        network("hybrid_pinn", bearing="ER16")


def test_order_cnn_learns_orders_better_than_plain_network():
    torch.manual_seed(0)
    with_rpm = accuracy(network("order_cnn", 2, backbone="wdcnn"))
    torch.manual_seed(0)
    plain = accuracy(create_model("wdcnn", 2))
    assert with_rpm > 0.97
    assert plain < with_rpm - 0.15


@pytest.mark.parametrize("backbone", ["wdcnn", "cnn1d"])
def test_hybrid_learns_better_with_evidence(backbone):
    torch.manual_seed(0)
    model = network("hybrid_pinn", 2, backbone=backbone)
    twin = copy.deepcopy(model)
    with_rpm, without = accuracy(model), accuracy(twin, keep_rpm=False)
    assert with_rpm > 0.97  # although the backbone overfits the windows
    assert without < with_rpm - 0.15


def test_hybrid_drops_signal_of_some_training_windows():
    torch.manual_seed(0)
    model = network("hybrid_pinn", signal_dropout=0.25)
    known = torch.ones(1000, 1, dtype=torch.bool)
    in_training = model._signal_scale(known)  # pyright: ignore
    assert (in_training == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert torch.equal(in_training[in_training != 0].unique(), model.signal_scale[None])  # pyright: ignore
    assert (model._signal_scale(~known) == 1).all()  # pyright: ignore
    assert (model.eval()._signal_scale(known) == model.signal_scale).all()  # pyright: ignore


def test_predict_windows_passes_speeds_of_dataset():
    torch.manual_seed(0)
    signals, _, metadata = order_set(3, seed=0)
    recordings = [
        Recording(signal.numpy(), RATE_HZ, label="2X", rpm=None if i == 1 else float(rpm))
        for i, (signal, rpm) in enumerate(zip(signals, metadata["rpm"], strict=True))
    ]
    dataset = WindowDataset(recordings, ["2X", "3X"], N_SAMPLES)
    windows, _, known = dataset[torch.arange(3)]
    assert known["rpm"][1].isnan()
    for name in NAMES:
        model = network(name, 2)
        expected = model.eval()(windows, known).softmax(1).detach().numpy()
        np.testing.assert_allclose(predict_windows(model, dataset).probabilities, expected, atol=1e-6)
        model.train()(windows, known).sum().backward()  # tensors cached in prediction can be used in training


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_contains_tensors_only_and_restores_from_file(name):
    model, file = network(name), io.BytesIO()
    signals, _, metadata = order_set(4, seed=0)
    model(signals, metadata)
    torch.save(model.state_dict(), file)
    file.seek(0)
    restored = network(name)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored.eval()(signals, metadata), model.eval()(signals, metadata))
    assert torch.equal(copy.deepcopy(model)(signals, metadata), model(signals, metadata))
    assert all(torch.is_tensor(value) for value in model.state_dict().values())


@pytest.mark.parametrize("name", NAMES)
def test_error_names_invalid_argument(name):
    model, signals = network(name), torch.randn(1, 1, N_SAMPLES)
    with pytest.raises(ValueError, match="this network needs windows of at least 64"):
        model(signals[..., :63])
    with pytest.raises(ValueError, match="signals have 2 channels, but this network was built for 1"):
        model(signals.expand(1, 2, -1))
    for rpm, message in ((0.0, "rpm is 0"), (-1.0, "rpm is -1"), (10.0, "shorter than one revolution at 10 rpm")):
        with pytest.raises(ValueError, match=message):
            model(signals, {"rpm": torch.tensor([rpm])})
    with pytest.raises(ValueError, match=r"rpm has shape .*2"):
        model(signals, {"rpm": torch.tensor([1000.0, 1000.0])})
    with pytest.raises(ValueError, match="sampling_rate_hz is -1"):
        create_model(name, 3, sampling_rate_hz=-1)
    with pytest.raises(ValueError, match="num_classes is 0"):
        network(name, 0)
    with pytest.raises(ValueError, match="unknown model 'cnn'"):
        network(name, backbone="cnn")


def test_running_standardization_uses_statistics_of_all_training_data():
    rng = np.random.default_rng(0)
    values = rng.normal([5, -30, 0], [20, 3, 0.1], size=(100, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    standardize = RunningStandardization(3)
    for part in np.split(values, [1, 3, 40, 41]):
        standardize(torch.from_numpy(part))
    assert standardize.count.tolist() == (~np.isnan(values)).sum(0).tolist()
    deviation = np.maximum(np.nanstd(values.astype(np.float64), 0), 1)
    expected = np.nan_to_num((values - np.nanmean(values.astype(np.float64), 0)) / deviation)
    before = standardize.mean.clone()
    found = standardize.eval()(torch.from_numpy(values))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    assert torch.equal(standardize.mean, before)


def test_running_standardization_of_nan_only_gives_zeros():
    standardize = RunningStandardization(2)
    assert torch.equal(standardize(torch.full((3, 2), math.nan)), torch.zeros(3, 2))
    assert standardize.mean.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_gpu_matches_cpu(name):
    torch.manual_seed(0)
    model = network(name).eval()
    signals, _, metadata = order_set(4, seed=0)
    metadata["rpm"][1] = torch.nan
    on_cpu = model(signals, metadata)
    on_gpu = model.cuda()(signals.cuda(), {"rpm": metadata["rpm"].cuda()}).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, atol=1e-3, rtol=1e-2)
