"""Tests of exports: their logits and metadata, rejected networks, and untrusted weight files."""

import functools
import json
import struct
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from whirl.data.windows import standardize
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.batch import Batch
from whirl.evaluation.export import (
    METADATA_FILE,
    PARITY,
    export_onnx,
    export_program,
    weights_from_bytes,
    weights_to_bytes,
)
from whirl.models.cnn2d import CNN2d
from whirl.models.registry import create_model
from whirl.models.time_frequency import TimeFrequencyNetwork

METADATA = {"classes": '["healthy", "wear"]', "window": "2048"}


def windows(n_channels=1, n=14, n_samples=2048):
    generator = torch.Generator().manual_seed(1)
    signals = standardize(torch.randn(n, n_channels, n_samples, generator=generator).cumsum(-1))
    rpm = torch.linspace(1000, 2000, n)
    return Batch(signals, torch.zeros(n, dtype=torch.int64), {"recording": torch.arange(n), "rpm": rpm})


def trained(name, n_channels=1, **arguments):
    """Create a network with batch statistics and outputs of the magnitude of a trained network."""
    torch.manual_seed(0)
    network = create_model(name, 5, n_channels, **arguments)
    with torch.no_grad():
        network(windows(n_channels, 32).signals)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(10)
    return network.eval()


def run_onnx(path, signals):
    return onnxruntime.InferenceSession(path).run(["logits"], {"signals": signals.numpy()})[0]


def test_onnx_matches_logits_for_any_batch_size_and_has_metadata(tmp_path):
    network, path = trained("wdcnn"), tmp_path / "model.onnx"
    assert export_onnx(network, windows(), path, METADATA) < PARITY
    for n in (1, 3, 64):
        signals = standardize(torch.randn(n, 1, 2048))
        expected = network(signals).detach().numpy()
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(run_onnx(path, signals), expected, atol=PARITY)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == METADATA
    (signals,), (logits,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (signals, logits)]
    assert shapes == [["batch", 1, 2048], ["batch", 5]]
    assert b"/whirl/" not in path.read_bytes()  # no paths of this machine


def test_exported_program_matches_logits_and_stores_no_window(tmp_path):
    network, path = trained("patch_transformer", n_channels=2), tmp_path / "model.pt2"
    assert export_program(network, windows(2), path, METADATA) < PARITY
    extra_files = {METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=extra_files)
    signals = windows(2, n=3).signals
    torch.testing.assert_close(program.module()(signals), network(signals), atol=PARITY, rtol=0)
    assert json.loads(extra_files[METADATA_FILE]) == METADATA
    assert not program.example_inputs[0][0].any()
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if b"/whirl/" in archive.read(name)]


def test_export_does_not_modify_network(tmp_path):
    network = trained("wdcnn").train()
    before = weights_to_bytes(network)
    export_program(network, windows(), tmp_path / "model.pt2", METADATA)
    assert network.training
    assert weights_to_bytes(network) == before
    assert network.features[1].weight.is_contiguous(memory_format=torch.channels_last)


class LazyMean(nn.Module):
    """Caches a value at its first call, which determines all later outputs."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(2048, 5)
        self.mean = None

    def forward(self, signals):
        if self.mean is None:
            self.mean = signals.mean()
        return self.classifier(signals.flatten(1)) + self.mean


class Unstable(nn.Linear):
    """Amplifies rounding errors beyond the tolerance."""

    def forward(self, signals):
        return super().forward(signals.flatten(1)).double().mul(1e6).sin().float()


class BySpeed(nn.Linear):
    """Uses metadata, which the graph does not receive."""

    def forward(self, signals, metadata=None):
        logits = super().forward(signals.flatten(1))
        return logits if metadata is None else logits + metadata["rpm"][:, None]


@pytest.mark.parametrize("export", [pytest.param(export_onnx, marks=pytest.mark.slow), export_program])
def test_graph_with_different_logits_is_not_written(tmp_path, export):
    batch = windows()
    with pytest.raises(ValueError, match=r"by 1e\+03 .* batch of 1, at window 0 \(recording 0, rpm 1000\)"):
        export(BySpeed(2048, 5), batch, tmp_path / "model", METADATA)
    assert not list(tmp_path.iterdir())


def test_graph_with_large_rounding_errors_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"allowed: 0\.0001"):
        export_onnx(Unstable(2048, 5), windows(), tmp_path / "model.onnx", METADATA)
    assert not list(tmp_path.iterdir())


def test_detects_values_that_the_capture_froze(tmp_path):
    """Captured on zeros, the cached mean stays 0; the network itself caches that of its first window."""
    batch = windows()
    shifted = batch._replace(signals=batch.signals + 1)
    path = tmp_path / "model.pt2"
    path.write_bytes(b"previous")
    with pytest.raises(ValueError, match=r"differ from the network's by 1 .* batch of 1, at window 0 "):
        export_program(LazyMean(), shifted, path, METADATA)
    assert path.read_bytes() == b"previous"
    assert list(tmp_path.iterdir()) == [path]


@functools.cache
def ramp(n_samples):
    return torch.linspace(0, 1, n_samples)


class Tapered(nn.Linear):
    """Caches a tensor outside of the module, as time-frequency representations cache their windows."""

    def forward(self, signals):
        return super().forward(signals.flatten(1) * ramp(signals.shape[-1]))


def test_external_cache_keeps_real_tensors(tmp_path):
    network = Tapered(2048, 5)
    assert export_program(network, windows(), tmp_path / "model.pt2", METADATA) < PARITY
    assert type(ramp(2048)) is torch.Tensor
    assert network(windows().signals).isfinite().all()


class DataDependent(nn.Linear):
    """Branches on the values of the input."""

    def forward(self, signals):
        logits = super().forward(signals.flatten(1))
        return logits if signals.mean() > 0 else -logits


def test_network_without_graph_raises_one_line(tmp_path, capfd):
    with pytest.raises(ValueError, match="cannot capture the network as a graph") as caught:
        export_program(DataDependent(2048, 5), windows(), tmp_path / "model.pt2", METADATA)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not list(tmp_path.iterdir())
    assert not "".join(capfd.readouterr())


def test_network_with_nan_output_is_not_written(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(2048, 5))
    nn.init.constant_(network[1].bias, torch.nan)
    with pytest.raises(ValueError, match="differ from the network's by nan"):
        export_program(network, windows(), tmp_path / "model.pt2", METADATA)


@pytest.mark.slow
@pytest.mark.parametrize("export", [export_onnx, export_program])
@pytest.mark.parametrize("name", ["cnn1d", "patch_transformer", "resnet18_1d", "wdcnn"])
def test_exports_every_waveform_network(tmp_path, name, export):
    assert export(trained(name, 2), windows(2, n=7, n_samples=4096), tmp_path / "model", METADATA) < PARITY / 10


@pytest.mark.slow
@pytest.mark.parametrize("export", [export_onnx, export_program])
def test_exports_time_frequency_network(tmp_path, export):
    torch.manual_seed(0)
    network = TimeFrequencyNetwork(TimeFrequency("stft", sampling_rate_hz=5120), CNN2d(num_classes=5)).eval()
    assert export(network, windows(n=7), tmp_path / "model", METADATA) < PARITY


def test_weights_round_trip_bitwise():
    network, other = trained("hybrid_pinn"), create_model("hybrid_pinn", 5)
    weights_from_bytes(other, weights_to_bytes(network))
    pairs = zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs)


def saved(**tensors):
    return safetensors.torch.save(tensors)


def with_header(header, n_bytes=16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(n_bytes)


def entry(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


GOOD = {"weight": torch.ones(1, 3), "bias": torch.zeros(1)}
MALFORMED = {
    "empty": b"",
    "short": b"\x01\x02",
    "header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "header of 2 MB": with_header(b" " * 2**21),
    "header not JSON": with_header(b"{'weight'"),
    "1e12 values": with_header({"weight": entry([10**6, 10**6], [0, 16]), "bias": entry([1], [12, 16])}),
    "offsets of 4 TB": with_header({"weight": entry([1, 3], [0, 4 * 10**12]), "bias": entry([1], [12, 16])}),
    "overlap": with_header({"weight": entry([1, 3], [0, 12]), "bias": entry([1], [8, 12])}, 12),
    "overflow": with_header({"weight": entry([2**63, 2**63], [0, 12]), "bias": entry([1], [12, 16])}),
    "negative": with_header({"weight": entry([-1, -3], [0, 12]), "bias": entry([1], [12, 16])}),
    "unknown type": with_header({"weight": entry([1, 3], [0, 12], "OBJ"), "bias": entry([1], [12, 16])}),
    "traversal": saved(**GOOD, **{"../../evil": torch.zeros(1)}),
    "one too few": saved(weight=GOOD["weight"]),
    "transposed": saved(weight=torch.ones(3, 1), bias=GOOD["bias"]),
    "integers": saved(weight=torch.ones(1, 3, dtype=torch.int32), bias=GOOD["bias"]),
    "half": saved(weight=torch.ones(1, 3).half(), bias=GOOD["bias"]),
    "not a number": saved(weight=torch.full((1, 3), torch.nan), bias=GOOD["bias"]),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_rejects_malformed_weights_and_keeps_network(data):
    network = nn.Linear(3, 1)
    before = weights_to_bytes(network)
    with pytest.raises(ValueError):
        weights_from_bytes(network, data)
    assert weights_to_bytes(network) == before


def test_rejects_non_finite_weights():
    network = nn.Linear(3, 1)
    nn.init.constant_(network.weight, torch.inf)
    with pytest.raises(ValueError, match="'weight' contains values that are not finite"):
        weights_to_bytes(network)
