"""Networks for time-frequency maps, and networks that compute the maps themselves."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whirl.dsp.time_frequency import TimeFrequency
from whirl.models.cnn2d import CNN2d, ToChannelsLast2d
from whirl.models.multi_tfr import MultiTFR, multi_tfr
from whirl.models.registry import create_model
from whirl.models.resnet18_2d import ResNet18Maps
from whirl.models.time_frequency import TimeFrequencyNetwork

NETWORKS = [CNN2d, ResNet18Maps]
RATE_HZ = 8192


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("n_frequencies", "n_times"), [(16, 16), (17, 41), (64, 16), (33, 64)])
def test_supports_maps_of_any_size(network, n_frequencies, n_times):
    maps = torch.randn(2, 3, n_frequencies, n_times)
    logits = network(5, in_channels=3)(maps)
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
def test_rejects_maps_of_wrong_shape(network):
    with pytest.raises(ValueError, match=r"maps have 15 frequencies and 40 times, .* at least 16 of each"):
        network(4)(torch.zeros(2, 1, 15, 40))
    with pytest.raises(ValueError, match="maps have 2 channels, but this network was built for 1"):
        network(4)(torch.zeros(2, 2, 32, 32))
    with pytest.raises(ValueError, match=r"shape \[2, 1, 2048\], expected \[batch, channels, frequencies, times\]"):
        network(4)(torch.zeros(2, 1, 2048))
    with pytest.raises(ValueError, match="num_classes is 0"):
        network(0)


def test_resnet_differs_from_published_network_only_in_its_stem():
    """The published one has 11 689 512 parameters for 3 channels and 1000 classes, 64 · 3 · 7² of them in the stem."""
    assert n_parameters(ResNet18Maps(1000, in_channels=3)) == 11_689_512 - 64 * 3 * 7**2 + 64 * 3 * 3**2


def test_resnet_blocks_are_initially_the_identity():
    torch.manual_seed(0)
    network = ResNet18Maps(4).eval()
    features = torch.rand(2, 64, 16, 16)
    torch.testing.assert_close(network.stages[:2](features), features)


@pytest.mark.parametrize("network", NETWORKS)
def test_training_is_invariant_to_scale_and_offset_of_maps(network):
    torch.manual_seed(0)
    a, maps = network(4), torch.randn(8, 1, 32, 32)
    b = copy.deepcopy(a)
    torch.manual_seed(1)
    expected = a(maps)
    torch.manual_seed(1)
    torch.testing.assert_close(b(20 * maps - 60), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", NETWORKS)
def test_convolutions_stay_channels_last(network):
    layouts = []
    model = network(3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
            )
    model(torch.randn(2, 1, 64, 64))
    assert len(layouts) >= 3
    assert all(layouts)


def test_cnn2d_depends_on_frequency_but_not_on_time():
    torch.manual_seed(0)
    network = CNN2d(4).eval()
    maps = torch.zeros(3, 1, 64, 128)
    maps[0, :, 8:16, 32:48] = maps[1, :, 8:16, 64:80] = maps[2, :, 40:48, 32:48] = 1
    early, late, high = network(maps)
    torch.testing.assert_close(early, late)
    assert not torch.allclose(early, high, atol=1e-3)


def test_cnn2d_learns_to_distinguish_two_bands():
    torch.manual_seed(0)
    network, targets = CNN2d(2), torch.arange(16) % 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(20):
        maps = torch.randn(16, 1, 32, 32)
        maps[targets == 0, :, 8] += 2
        maps[targets == 1, :, 24] += 2
        loss = F.cross_entropy(network(maps), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_bf16_autocast_is_close_to_float32():
    torch.manual_seed(0)
    network, maps = CNN2d(5, dropout=0.0), torch.randn(8, 1, 64, 64)
    nn.init.normal_(network.classifier[-1].weight, std=0.1)
    exact = network(maps)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(maps)
    assert logits.dtype == torch.bfloat16
    assert (logits - exact).norm() < 0.05 * exact.norm()


def test_compiles_as_one_graph():
    network, maps = CNN2d(3).eval(), torch.randn(2, 1, 32, 40)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(maps), network(maps))


@pytest.mark.gpu
@pytest.mark.parametrize("network", NETWORKS)
def test_gpu_matches_cpu(network):
    model, maps = network(5).eval(), torch.randn(4, 1, 64, 64)
    on_cpu = model(maps)
    with torch.backends.cudnn.flags(allow_tf32=False):
        torch.testing.assert_close(model.cuda()(maps.cuda()).cpu(), on_cpu, atol=1e-4, rtol=1e-3)


def make_pair():
    torch.manual_seed(0)
    representations = {kind: TimeFrequency(kind, RATE_HZ, 32, 32) for kind in ("stft", "cwt")}
    networks = {kind: CNN2d(4) for kind in representations}
    for network in networks.values():
        nn.init.normal_(network.classifier[-1].weight, std=0.3)
    return MultiTFR(representations, networks).eval()


def test_time_frequency_network_composes_representation_and_network():
    torch.manual_seed(0)
    representation, network = TimeFrequency("stft", RATE_HZ, 32, 32), CNN2d(4).eval()
    composed = TimeFrequencyNetwork(representation, network)
    signals = torch.randn(3, 1, 1024, requires_grad=True)
    maps = representation(signals)
    assert torch.equal(composed(signals), network(maps))
    assert torch.equal(composed(maps), network(maps))
    assert composed.state_dict().keys() == {f"network.{key}" for key in network.state_dict()}
    (gradient,) = torch.autograd.grad(composed(signals).square().sum(), signals)
    assert gradient.abs().sum() > 0


def test_ensemble_averages_class_probabilities():
    network, signals = make_pair(), torch.randn(3, 1, 1024)
    members = [network(signals, representation=kind).softmax(1) for kind in ("stft", "cwt")]
    assert not torch.allclose(*members, atol=1e-3)
    logits = network(signals)
    torch.testing.assert_close(logits.exp(), sum(members) / 2)
    torch.testing.assert_close(logits.softmax(1), sum(members) / 2)


def test_maps_are_passed_to_named_member():
    network, signals = make_pair(), torch.randn(3, 1, 1024)
    for kind in ("stft", "cwt"):
        maps = network.representation[kind](signals)
        assert torch.equal(network(maps, representation=kind), network(signals, representation=kind))
    with pytest.raises(ValueError, match="unknown representation 'wvd'; expected one of: stft, cwt"):
        network(maps, representation="wvd")


def test_rejects_different_names_and_no_members():
    with pytest.raises(ValueError, match=r"\['stft'\] and networks \['cwt'\], expected the same names and"):
        MultiTFR({"stft": TimeFrequency("stft", RATE_HZ)}, {"cwt": CNN2d(2)})
    with pytest.raises(ValueError, match="at least one"):
        MultiTFR({}, {})


def test_multi_tfr_is_registered_and_restores_state_dict_from_file():
    network = multi_tfr(4, 2, sampling_rate_hz=RATE_HZ, kinds=("stft", "cwt")).eval()
    assert isinstance(create_model("multi_tfr", 4, kinds=("stft",)), MultiTFR)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    restored = multi_tfr(4, 2, sampling_rate_hz=RATE_HZ, kinds=("stft", "cwt")).eval()
    restored.load_state_dict(torch.load(file, weights_only=True))
    signals = torch.randn(2, 2, 2048)
    assert torch.equal(network(signals), restored(signals))
    assert {member.representation.sampling_rate_hz for member in network.members.values()} == {RATE_HZ}


def test_multi_tfr_accepts_arguments_by_kind():
    network = create_model("multi_tfr", 4, sampling_rate_hz=RATE_HZ, kinds={"stft": {"n_frequencies": 32}, "cwt": {}})
    sizes = {kind: each.config["n_frequencies"] for kind, each in network.representation.items()}
    assert sizes == {"stft": 32, "cwt": 64}
    with pytest.raises(TypeError, match="n_rows"):
        create_model("multi_tfr", 4, kinds={"stft": {"n_rows": 32}})


def test_network_under_several_names_shares_its_weights():
    shared = CNN2d(4)
    representations = {kind: TimeFrequency(kind, RATE_HZ, 32, 32) for kind in ("stft", "cwt")}
    assert n_parameters(MultiTFR(representations, dict.fromkeys(representations, shared))) == n_parameters(shared)


def test_first_layer_standardizes_each_channel():
    maps = torch.randn(8, 2, 16, 16) * torch.tensor([2.0, 30.0])[:, None, None] - 60
    layer = ToChannelsLast2d(in_channels=2)
    standardized = layer(maps)
    torch.testing.assert_close(standardized.mean((0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardized.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-3, rtol=0)
    assert not list(layer.parameters())
