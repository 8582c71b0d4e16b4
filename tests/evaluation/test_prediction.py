"""Tests of predictions for windows and their aggregation to recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.evaluation.prediction import UNKNOWN, Predictions, aggregate_by_recording, predict_windows

CLASSES = ("healthy", "wear", "imbalance")


@pytest.fixture
def dataset() -> WindowDataset:
    rng = np.random.default_rng(0)
    labels = ["wear", None, "imbalance", "healthy"]
    recordings = [
        Recording(rng.standard_normal((2, 700 + 100 * i)), 1000, label=label) for i, label in enumerate(labels)
    ]
    return WindowDataset(recordings, CLASSES, window=128)


@pytest.fixture
def network() -> nn.Sequential:
    """A network with dropout and batch normalization, whose outputs depend on the mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 9), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def test_predictions_match_the_network_in_order(dataset: WindowDataset, network: nn.Sequential) -> None:
    predictions = predict_windows(network, dataset, batch_size=5)
    signals, targets, metadata = dataset[:]
    with torch.no_grad():
        expected = torch.softmax(network.eval()(signals), dim=1)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-6)
    assert predictions.targets.tolist() == targets.tolist()
    assert predictions.recording.tolist() == metadata["recording"].tolist()
    assert set(predictions.targets[predictions.recording == 1]) == {UNKNOWN}


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batch_size_does_not_change_predictions(
    dataset: WindowDataset, network: nn.Sequential, batch_size: int
) -> None:
    expected = predict_windows(network, dataset, batch_size=4).probabilities
    np.testing.assert_allclose(
        predict_windows(network, dataset, batch_size=batch_size).probabilities, expected, atol=1e-6
    )


def test_loader_gives_same_predictions_as_data_set(dataset: WindowDataset, network: nn.Sequential) -> None:
    expected = predict_windows(network, dataset)
    predictions = predict_windows(network, make_loader(dataset, 6, shuffle=True, seed=3), "cpu")
    assert sorted(predictions.recording) == sorted(expected.recording)
    # The order of windows differs, but not the means over recordings.
    np.testing.assert_allclose(
        aggregate_by_recording(predictions).probabilities, aggregate_by_recording(expected).probabilities, atol=1e-6
    )


def test_restores_mode_of_each_module(dataset: WindowDataset, network: nn.Sequential) -> None:
    network.train()
    network[1].eval()  # a frozen batch norm
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    predict_windows(network, dataset)
    assert [module.training for module in network.modules()] == modes
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_restores_modes_after_an_error(network: nn.Sequential) -> None:
    network.train()
    batch = (torch.randn(2, 5, 128), torch.tensor([0, 1]), {"recording": torch.tensor([0, 1])})
    with pytest.raises(RuntimeError):
        predict_windows(network, [batch])  # five channels instead of two
    assert all(module.training for module in network.modules())


def test_non_finite_output_names_the_recording(dataset: WindowDataset, network: nn.Sequential) -> None:
    with torch.no_grad():
        network[5].bias.fill_(torch.nan)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    with pytest.raises(ValueError, match="recording 0 and 3 others"):
        predict_windows(network, dataset)


def test_rejects_batches_without_recording_indices(network: nn.Sequential) -> None:
    with pytest.raises(ValueError, match="has no recording indices"):
        predict_windows(network, [(torch.randn(2, 2, 128), torch.tensor([0, 1]))])
    with pytest.raises(ValueError, match="at least one window"):
        predict_windows(network, [])


@pytest.mark.parametrize(
    ("probabilities", "targets", "recording", "message"),
    [
        ([[2.0, -1.0]], [0], [0], "logits"),
        ([[3.0, 0.2]], [0], [0], "logits"),
        ([[0.5, 0.5]], [2], [0], "targets range from 2"),
        ([[0.5, 0.5]], [-2], [0], "targets range from -2"),
        ([[0.5, 0.5]], [0], [-1], "recording range from -1"),
        ([[0.5, 0.5]], [0, 1], [0], "targets have shape"),
        ([0.5, 0.5], [0], [0], "shape"),
        (np.zeros((0, 2)), [], [], "not empty"),
    ],
)
def test_rejects_invalid_predictions(probabilities: list, targets: list, recording: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictions(np.array(probabilities), np.array(targets), np.array(recording))


def test_aggregation_is_mean_over_windows_of_a_recording() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(4), size=40)
    recording = rng.integers(0, 6, 40) * 10
    windows = Predictions(probabilities, recording % 4, recording)
    recordings = aggregate_by_recording(windows)
    assert recordings.recording.tolist() == sorted(set(recording))
    for index, row in zip(recordings.recording, recordings.probabilities, strict=True):
        np.testing.assert_allclose(row, probabilities[recording == index].mean(0))


def test_one_confidently_wrong_window_does_not_decide() -> None:
    windows = Predictions(np.array([[0.9, 0.1]] * 3 + [[0.0, 1.0]]), np.zeros(4), np.zeros(4))
    assert aggregate_by_recording(windows).predicted.tolist() == [0]


def test_aggregation_of_single_windows_is_identity() -> None:
    windows = Predictions(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), np.array([0, 1]))
    assert np.array_equal(aggregate_by_recording(windows).probabilities, windows.probabilities)


def test_rejects_recording_with_different_targets() -> None:
    with pytest.raises(ValueError, match="different targets"):
        aggregate_by_recording(Predictions(np.full((2, 2), 0.5), np.array([0, 1]), np.array([4, 4])))


def test_rejects_networks_with_one_output(dataset):
    with pytest.raises(ValueError, match="the network has one output, expected logits of at least two classes"):
        predict_windows(nn.Sequential(nn.Flatten(), nn.Linear(256, 1)), dataset)
