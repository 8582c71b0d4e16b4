import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from whirl.engine.precision import cpu_has_bfloat16
from whirl.models.blocks import AddHeightAxis, check_dropout, conv, max_pool
from whirl.models.patch_transformer import PatchTransformer, sinusoids
from whirl.models.registry import create_model

# name: (shortest window, an odd length, a typical length)
LENGTHS = {
    "cnn1d": (64, 1531, 4096),
    "patch_transformer": (64, 1531, 4096),
    "resnet18_1d": (32, 1531, 4096),
    "wdcnn": (1024, 1531, 2048),
}
NAMES = sorted(LENGTHS)


def to_conv1d(network: nn.Module) -> nn.Module:
    """Return the same network with the same weights, built from standard 1-D layers on `[B, C, T]`."""
    twin = copy.deepcopy(network)
    for parent in list(twin.modules()):
        for name, child in parent.named_children():
            setattr(parent, name, _to_1d_layer(child))
    return twin


def _to_1d_layer(layer: nn.Module) -> nn.Module:
    match layer:
        case AddHeightAxis():
            return nn.Identity()
        case nn.Conv2d():
            kernel, stride, padding = (_last(x) for x in (layer.kernel_size, layer.stride, layer.padding))
            plain = nn.Conv1d(layer.in_channels, layer.out_channels, kernel, stride, padding, bias=False)
            plain.load_state_dict({"weight": layer.weight.squeeze(2)})
            return plain
        case nn.BatchNorm2d():
            plain = nn.BatchNorm1d(layer.num_features)
            plain.load_state_dict(layer.state_dict())
            return plain
        case nn.MaxPool2d():
            kernel, stride, padding = (_last(x) for x in (layer.kernel_size, layer.stride, layer.padding))
            return nn.MaxPool1d(kernel, stride, padding)
        case nn.AvgPool2d():
            return nn.AvgPool1d(_last(layer.kernel_size))
        case nn.AdaptiveAvgPool2d():
            return nn.AdaptiveAvgPool1d(_last(layer.output_size))
    return layer


def _last(pair: Any) -> int:
    return pair[1]


def make_with_random_weights(name: str, in_channels: int = 1, num_classes: int = 5) -> nn.Module:
    """Create a network without dropout, with normalization and linear weights that are not zeros and ones."""
    torch.manual_seed(1)
    network = create_model(name, num_classes, in_channels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def loss_gradients(network: nn.Module, signals: Tensor, targets: Tensor) -> dict[str, Tensor]:
    F.cross_entropy(network(signals), targets).backward()
    return {name: p.grad.flatten() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize(("name", "length"), [(name, length) for name in NAMES for length in LENGTHS[name]])
def test_matches_conv1d_implementation_forward_and_backward(name: str, length: int, in_channels: int):
    ours = make_with_random_weights(name, in_channels)
    plain = to_conv1d(ours)
    assert not any(isinstance(module, nn.Conv2d) for module in plain.modules())
    signals, targets = torch.randn(4, in_channels, length), torch.randint(5, (4,))
    for network in (ours, plain):
        network(signals)  # updates the running statistics
        network.eval()
    torch.testing.assert_close(ours(signals), plain(signals), atol=1e-5, rtol=1e-5)
    # in fp64, since batch normalization with four short windows amplifies rounding errors of fp32
    ours, plain, signals = ours.double().train(), plain.double().train(), signals.double()
    torch.testing.assert_close(ours(signals), plain(signals))
    gradients, expected = loss_gradients(ours, signals, targets), loss_gradients(plain, signals, targets)
    assert gradients.keys() == expected.keys() == dict(ours.named_parameters()).keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[key], msg=lambda m, key=key: f"{key}: {m}")


def test_wdcnn_equals_published_network_at_published_length():
    def stage(in_channels: int, out_channels: int, k: int, stride: int, padding: int) -> list[nn.Module]:
        convolution = nn.Conv1d(in_channels, out_channels, k, stride, padding, bias=False)
        return [convolution, nn.BatchNorm1d(out_channels), nn.ReLU(), nn.MaxPool1d(2)]

    published = nn.Sequential(
        *stage(1, 16, 64, 16, 24),
        *stage(16, 32, 3, 1, 1),
        *stage(32, 64, 3, 1, 1),
        *stage(64, 64, 3, 1, 1),
        *stage(64, 64, 3, 1, 0),
        nn.Flatten(),
        nn.Linear(192, 100),
        nn.BatchNorm1d(100),
        nn.ReLU(),
        nn.Linear(100, 5),
    )
    ours = make_with_random_weights("wdcnn")
    weights = [value.squeeze(2) if value.ndim == 4 else value for value in ours.state_dict().values()]
    published.load_state_dict(dict(zip(published.state_dict(), weights, strict=True)))
    signals, targets = torch.randn(16, 1, 2048), torch.randint(5, (16,))
    torch.testing.assert_close(ours(signals), published(signals), atol=1e-5, rtol=1e-5)
    gradients = (loss_gradients(network.double(), signals.double(), targets).values() for network in (ours, published))
    for ours_gradient, gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_gradient, gradient)


@pytest.mark.parametrize("name", NAMES)
def test_shortest_window_is_the_documented_one(name: str):
    network, shortest = create_model(name, 4).eval(), LENGTHS[name][0]
    assert network(torch.randn(2, 1, shortest)).shape == (2, 4)
    with pytest.raises(ValueError, match=f"signals have {shortest - 1} samples.* at least {shortest}"):
        network(torch.randn(2, 1, shortest - 1))


@pytest.mark.parametrize("name", NAMES)
def test_rejects_signals_of_wrong_shape(name: str):
    network = create_model(name, 4, in_channels=2)
    with pytest.raises(ValueError, match="signals have 1 channels, but this network was built for 2"):
        network(torch.zeros(2, 1, 4096))
    with pytest.raises(ValueError, match=r"signals have shape \[2, 4096\], expected \[batch, channels, samples\]"):
        network(torch.zeros(2, 4096))


@pytest.mark.parametrize("name", NAMES)
def test_rejects_invalid_counts(name: str):
    with pytest.raises(ValueError, match="num_classes is 0, expected an integer >= 1"):
        create_model(name, 0)
    with pytest.raises(ValueError, match="in_channels is -1, expected an integer >= 1"):
        create_model(name, 3, in_channels=-1)
    with pytest.raises(TypeError, match="num_classes is '3', expected an integer"):
        create_model(name, "3")  # pyright: ignore
    with pytest.raises(TypeError, match="in_channels is True, expected an integer"):
        create_model(name, 3, in_channels=True)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_rejects_invalid_dropout(dropout: float):
    with pytest.raises(ValueError, match=f"dropout is {dropout}"):
        check_dropout(dropout)
    with pytest.raises(ValueError, match=f"dropout is {dropout}"):
        PatchTransformer(3, dropout=dropout)


@pytest.mark.parametrize("name", NAMES)
def test_weights_depend_on_seed(name: str):
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in create_model(name, 4).parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("name", NAMES)
def test_initial_predictions_are_almost_uniform(name: str):
    # so that training starts at a loss of log K
    torch.manual_seed(0)
    logits = create_model(name, 8)(torch.randn(16, 1, 4096))
    loss = F.cross_entropy(logits, torch.arange(16) % 8)
    torch.testing.assert_close(loss, torch.tensor(8.0).log(), atol=0.3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_restores_from_file_with_weights_only(name: str):
    network, file = make_with_random_weights(name), io.BytesIO()
    network(torch.randn(4, 1, 4096))  # updates the running statistics
    torch.save(network.state_dict(), file)
    file.seek(0)
    restored = create_model(name, 5)
    restored.load_state_dict(torch.load(file, weights_only=True))
    signals = torch.randn(2, 1, 4096)
    assert torch.equal(network.eval()(signals), restored.eval()(signals))


@pytest.mark.parametrize("name", NAMES)
def test_bf16_autocast_is_close_to_float32_with_float32_gradients(name: str):
    network = make_with_random_weights(name)
    signals, targets = torch.randn(4, 1, 2048), torch.randint(5, (4,))
    exact = network(signals)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(signals)
        loss = F.cross_entropy(logits, targets)
    loss.backward()
    assert logits.dtype == torch.bfloat16
    assert (logits - exact).norm() < 0.05 * exact.norm()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph(name: str):
    network = make_with_random_weights(name).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    signals = torch.randn(2, 1, 4096)
    torch.testing.assert_close(compiled(signals), network(signals))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiled_equals_eager(name: str):
    network = make_with_random_weights(name).eval()
    signals = torch.randn(2, 1, 4096)
    torch.testing.assert_close(torch.compile(network)(signals), network(signals), atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_gpu_matches_cpu(name: str):
    network = make_with_random_weights(name).eval()
    signals = torch.randn(4, 1, 4096)
    on_cpu = network(signals)
    with torch.backends.cudnn.flags(allow_tf32=False):
        on_gpu = network.cuda()(signals.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_learns_to_distinguish_two_tones(name: str):
    torch.manual_seed(0)
    network = create_model(name, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    time_samples, targets = torch.arange(1024.0), torch.arange(16) % 2
    frequencies = torch.tensor([0.02, 0.05])[targets].unsqueeze(1)  # cycles per sample
    for _ in range(25):
        tones = torch.sin(2 * torch.pi * (frequencies * time_samples + torch.rand(16, 1)))
        signals = tones + 0.1 * torch.randn_like(tones)
        loss = F.cross_entropy(network(signals.unsqueeze(1)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.2:
            return
    pytest.fail(f"the loss is {loss.item()} after 25 steps")


@pytest.mark.parametrize("name", ["cnn1d", "resnet18_1d", "wdcnn"])
def test_convolutions_stay_channels_last(name: str):
    # a layout conversion per layer would lose the speed-up of the channels-last layout
    layouts = []
    network = create_model(name, 3)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, output: layouts.append(
                    [x.is_contiguous(memory_format=torch.channels_last) for x in (*inputs, output)]
                )
            )
    network(torch.randn(2, 1, 4096))
    assert len(layouts) >= 5
    assert all(map(all, layouts))


@pytest.mark.parametrize(("name", "expected"), [("cnn1d", 12264), ("resnet18_1d", 435), ("wdcnn", 1520)])
def test_receptive_fields_match_documented_tables(name: str, expected: int):
    features = nn.Sequential(*list(create_model(name, 3).children())[:-1])
    if name == "wdcnn":
        features = features[0][:-2]  # pyright: ignore  # without the adaptive pooling to three steps
    assert receptive_field(features, length=4 * expected) == expected


def receptive_field(features: nn.Module, length: int) -> int:
    """Return the number of input samples that the middle output step depends on, determined by its gradient."""
    linear = to_conv1d(features).eval()
    for module in linear.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.BatchNorm1d):
            nn.init.ones_(module.weight)
    # all values are positive, so ReLUs pass gradients; average pooling passes those of all inputs, unlike max-pooling
    for parent in linear.modules():
        for key, child in parent.named_children():
            if isinstance(child, nn.MaxPool1d):
                setattr(parent, key, nn.AvgPool1d(child.kernel_size, child.stride, child.padding))
    signals = torch.ones(1, 1, length, dtype=torch.float64, requires_grad=True)
    output = linear.double()(signals)
    output[..., output.shape[-1] // 2].sum().backward()
    return int((signals.grad != 0).sum())


def test_patch_transformer_depends_on_patch_order_only_by_position_encodings():
    network = make_with_random_weights("patch_transformer").eval()
    tokens = network.embed(torch.randn(2, 1, 1024))  # pyright: ignore
    assert tokens.shape == (2, 16, 128)
    shuffled = network.classify(tokens.flip(1))  # pyright: ignore
    assert not torch.allclose(shuffled, network.classify(tokens), atol=1e-3)  # pyright: ignore
    encodings = sinusoids(16, 128)
    original, reversed_ = (network.classify(t - encodings) for t in (tokens, tokens.flip(1)))  # pyright: ignore
    torch.testing.assert_close(original, reversed_, atol=1e-5, rtol=1e-4)


def test_patch_transformer_augments_tokens_in_training_only():
    calls = []

    def reverse(tokens: Tensor, training: bool) -> Tensor:
        calls.append((tuple(tokens.shape), training))
        return tokens.flip(1)

    network = make_with_random_weights("patch_transformer")
    signals, keys = torch.randn(2, 1, 1024), network.state_dict().keys()
    plain = network(signals)
    network.patch_augmentation = reverse  # pyright: ignore
    augmented = network(signals)
    assert calls == [((2, 16, 128), True)]
    assert torch.equal(augmented, network.classify(network.embed(signals).flip(1)))  # pyright: ignore
    assert not torch.allclose(
        augmented, plain, atol=1e-3
    )  # the order matters, since position encodings are added afterwards
    assert network.state_dict().keys() == keys
    assert torch.equal(network.eval()(signals), plain)
    assert len(calls) == 1
    with pytest.raises(TypeError, match="patch_augmentation is 'medium', expected a function"):
        create_model("patch_transformer", 3, patch_augmentation="medium")


def test_patch_transformer_rejects_width_not_divisible_by_heads():
    with pytest.raises(ValueError, match=r"width is 100, expected a multiple of 2 · n_heads = 8"):
        PatchTransformer(3, width=100)


def test_conv_and_max_pool_match_1d_layers():
    signals = torch.randn(2, 3, 50)
    layer = conv(3, 4, kernel=5, stride=2, padding=1)
    expected = F.conv1d(signals, layer.weight.squeeze(2), stride=2, padding=1)
    torch.testing.assert_close(layer(signals.unsqueeze(2)).squeeze(2), expected)
    pooled = max_pool(3, stride=2, padding=1)(signals.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(pooled, F.max_pool1d(signals, 3, 2, 1))


def weight_gradients(network: nn.Module, inputs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the bfloat16 weight gradient of each convolution, and the float32 one for the same input and output."""
    seen: dict[str, list[Tensor]] = {}

    def register_hooks(name: str, convolution: nn.Conv2d) -> None:
        def on_forward(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = [args[0].detach().float()]
            output.register_hook(lambda gradient: seen[name].append(gradient.float()))

        convolution.register_forward_hook(on_forward)

    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    for name, layer in layers.items():
        register_hooks(name, layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network(inputs).float().logsumexp(1).sum()
    garbage = [torch.full((n,), torch.nan) for n in (10_000, 30_000, 60_000, 120_000) for _ in range(4)]
    del garbage  # content of uninitialized memory
    loss.backward()
    return {
        name: (
            layer.weight.grad,
            conv2d_weight(seen[name][0], layer.weight.shape, seen[name][1], layer.stride, layer.padding),
        )
        for name, layer in layers.items()
    }


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize(
    ("name", "length"),
    [
        *(("cnn1d", 2**power) for power in range(6, 12)), ("wdcnn", 1024), ("resnet18_1d", 32),
        ("patch_transformer", 64), ("cnn2d", 16), ("resnet18_2d", 16),
    ],
)  # fmt: skip
def test_bfloat16_gradients_of_short_signals(name: str, length: int):
    """torch 2.13 leaves the gradient of a padded convolution over one step uninitialized on some CPUs."""
    shape = (length, length) if name.endswith("2d") else (length,)
    gradients = weight_gradients(make_with_random_weights(name), torch.randn(16, 1, *shape))
    assert gradients
    for layer, (reduced, exact) in gradients.items():
        assert (reduced - exact).norm() < 0.05 * exact.norm(), layer
