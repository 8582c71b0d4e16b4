import copy
import inspect
import io
import re

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from whirl.models.registry import create_model
from whirl.optim.cnn_optimizer import (
    OptimizerConfig,
    create_adamw_optimizer,
    create_optimizer,
    create_rmsprop_optimizer,
    create_sgd_optimizer,
    get_parameter_groups,
)

# listed at run time, so that optimizers added by later versions of torch are tested, too
TORCH_NAMES = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
)
UNSUPPORTED = {"LBFGS": "closure", "SparseAdam": "sparse gradients"}
SUPPORTED = [name for name in TORCH_NAMES if name not in UNSUPPORTED]
PRESETS = ["default", "fast_convergence", "strong_regularization", "sgd_baseline"]
# arguments of create_optimizer, and the equivalent torch optimizer
EQUIVALENTS = {
    "adamw": ({"lr": 0.01}, lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-4)),
    "adam": ({"lr": 0.01, "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
    "sgd": (
        {"lr": 0.01},
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
    ),
    "SGD": ({"lr": 0.01, "momentum": 0, "weight_decay": 0}, lambda p: torch.optim.SGD(p, lr=0.01)),
    "RMSprop": ({"alpha": 0.9}, lambda p: torch.optim.RMSprop(p, lr=1e-3, alpha=0.9, weight_decay=1e-4)),
    "nadam": ({"eps": 1e-4}, lambda p: torch.optim.NAdam(p, lr=1e-3, eps=1e-4, weight_decay=1e-4)),
}


def two_layers(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16, bias=bias), nn.Tanh(), nn.Linear(16, 3, bias=bias))


def losses(network: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int) -> list[float]:
    signals = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    history = []
    for _ in range(n_steps):
        loss = F.cross_entropy(network(signals), signals[:, :3].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


@pytest.mark.parametrize("name", SUPPORTED)
def test_loss_decreases_with_every_torch_optimizer(name):
    network = two_layers(bias=name != "Muon")
    has_decay = "weight_decay" in inspect.signature(getattr(torch.optim, name)).parameters
    optimizer = create_optimizer(name.lower(), network, lr=0.01, weight_decay=1e-4 if has_decay else 0)
    assert type(optimizer).__name__ == name
    history = losses(network, optimizer, 60)
    assert min(history[-5:]) < history[0] - 0.002  # Adadelta is slow at this learning rate


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_rejects_unsupported_optimizers(name):
    with pytest.raises(ValueError, match=f"'{name}' is not supported: .*{UNSUPPORTED[name]}"):
        create_optimizer(name, two_layers())


@pytest.mark.parametrize("name", EQUIVALENTS)
def test_takes_the_same_steps_as_torch_optimizer(name):
    arguments, create_reference = EQUIVALENTS[name]
    network, expected = two_layers(), two_layers()
    optimizer, reference = create_optimizer(name, network, **arguments), create_reference(expected.parameters())
    for _ in range(5):
        losses(network, optimizer, 1)
        losses(expected, reference, 1)
        for p, q in zip(network.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


def test_functions_have_documented_defaults():
    parameters = list(two_layers().parameters())
    adamw, sgd = create_adamw_optimizer(parameters), create_sgd_optimizer(parameters)
    rmsprop = create_rmsprop_optimizer(parameters)
    assert (adamw.defaults["lr"], adamw.defaults["weight_decay"], adamw.defaults["betas"]) == (1e-3, 1e-4, (0.9, 0.999))
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (1e-2, 0.9, True)
    assert (rmsprop.defaults["lr"], rmsprop.defaults["weight_decay"], rmsprop.defaults["alpha"]) == (1e-3, 1e-5, 0.99)
    assert all(create_optimizer(name, parameters).defaults["lr"] == 1e-3 for name in ("adamw", "sgd", "rmsprop"))
    assert create_optimizer("rmsprop", parameters).defaults["weight_decay"] == 1e-4


def test_accepts_network_iterator_named_parameters_and_groups():
    network = two_layers()
    expected = list(network.parameters())
    for model_params in (network, iter(expected), network.named_parameters(), [{"params": iter(expected)}]):
        optimizer = create_optimizer("adamw", model_params)
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in expected]
    single = create_optimizer("adamw", [{"params": expected[0], "lr": 0.5}, {"params": expected[1:]}])
    assert [group["lr"] for group in single.param_groups] == [0.5, 1e-3]


def test_numpy_scalars_can_be_loaded_with_weights_only():
    tenth = np.float64(0.1)
    for optimizer in (
        create_optimizer("adamw", two_layers(), betas=(tenth, np.float32(0.5)), eps=tenth),
        create_optimizer("sgd", two_layers(), lr=tenth, momentum=tenth, nesterov=np.True_),
        create_optimizer("rmsprop", [{"params": two_layers().parameters(), "lr": tenth, "eps": tenth}], alpha=tenth),
    ):
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        assert torch.load(file, weights_only=True)["param_groups"] == optimizer.state_dict()["param_groups"]
        assert 0.1 in [value for group in optimizer.param_groups for key, value in group.items() if key != "params"]


def group(key, value):
    return [{"params": [nn.Parameter(torch.ones(2))], key: value}]


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            ValueError,
            "unknown optimizer 'adamm'; did you mean 'adam'.* Expected one of: adadelta, .*, adamw, .*, sgd",
            {"optimizer_type": "Adamm"},
        ),
        (TypeError, "optimizer_type is a NoneType", {"optimizer_type": None}),
        (TypeError, "optimizer_type is a Sequential, expected a name", {"optimizer_type": two_layers()}),
        (TypeError, "AdamW has no argument beta, momentum; expected one of: lr, betas", {"beta": 1, "momentum": 0.9}),
        (
            TypeError,
            "SGD has no argument betas; expected one of: lr, momentum",
            {"optimizer_type": "sgd", "betas": (0.9, 0.99)},
        ),
        (TypeError, "model_params is None", {"model_params": None}),
        (TypeError, "model_params is a str", {"model_params": "weights"}),
        (TypeError, "model_params is a Parameter", {"model_params": nn.Parameter(torch.ones(2))}),
        (TypeError, "model_params is a OrderedDict", {"model_params": two_layers().state_dict()}),
        (TypeError, "model_params is a int", {"model_params": 3}),
        (TypeError, "model_params contains a Linear", {"model_params": [nn.Linear(2, 2)]}),
        (ValueError, "model_params is empty, expected at least one parameter", {"model_params": []}),
        (ValueError, "model_params is empty", {"model_params": [{"params": []}]}),
        (ValueError, "model_params is empty", {"model_params": nn.ReLU()}),
        (ValueError, r"a parameter group has no 'params', only \['lr'\]", {"model_params": [{"lr": 0.1}]}),
        (TypeError, "'params' of a parameter group contains a Linear", {"model_params": [{"params": nn.Linear(2, 2)}]}),
        (TypeError, "'params' of a parameter group contains a int", {"model_params": [{"params": [3]}]}),
        (TypeError, "'params' of a parameter group contains a str", {"model_params": [{"params": "abc"}]}),
        (
            TypeError,
            "a parameter group has no argument weightdecay; expected one of: params",
            {"model_params": group("weightdecay", 1)},
        ),
        (ValueError, "lr is -1.0, expected a finite number >= 0", {"model_params": group("lr", -1.0)}),
        (ValueError, "lr is 0, expected a finite number > 0", {"lr": 0}),
        (ValueError, "lr is nan", {"lr": float("nan")}),
        (ValueError, "lr is '1e-3', expected a finite number", {"lr": "1e-3"}),
        (ValueError, "weight_decay is -0.1, expected a finite number >= 0", {"weight_decay": -0.1}),
        (ValueError, r"betas is \[0.9\], expected two numbers", {"betas": [0.9]}),
        (ValueError, "betas is 1.0, expected a number in", {"betas": (1.0, 0.9)}),
        (ValueError, "momentum is 1.5", {"optimizer_type": "sgd", "momentum": 1.5}),
        (ValueError, "momentum is nan", {"optimizer_type": "sgd", "momentum": float("nan")}),
        (ValueError, r"momentum is 1, expected a number in \[0, 1\)", {"optimizer_type": "rmsprop", "momentum": 1}),
        (ValueError, "Rprop has no weight decay, but weight_decay is 0.0001", {"optimizer_type": "rprop"}),
        (ValueError, r"Muon supports only matrices.* 2 of 4 .*the first \[16\]", {"optimizer_type": "muon"}),
        (ValueError, r"alpha is 1.5, expected a number in \[0, 1", {"optimizer_type": "rmsprop", "alpha": 1.5}),
    ],
)
def test_rejects_invalid_input(error, message, arguments):
    with pytest.raises(error, match=message):
        create_optimizer(**{"model_params": two_layers(), **arguments})


# implementations


def implementation(optimizer: torch.optim.Optimizer) -> tuple[bool, bool]:
    return bool(optimizer.defaults.get("fused")), bool(optimizer.defaults.get("foreach"))


def test_implementation_is_selected_by_optimizer_and_size():
    fused, foreach, plain = (True, False), (False, True), (False, False)
    small, large = create_model("wdcnn", 3), create_model("resnet18_1d", 3)
    assert implementation(create_optimizer("adamw", small)) == fused
    assert implementation(create_optimizer("adam", large)) == fused
    assert implementation(create_optimizer("sgd", small)) == foreach  # fused SGD is incorrect in float16
    assert implementation(create_optimizer("rmsprop", small)) == foreach
    assert implementation(create_optimizer("rmsprop", large)) == plain
    assert implementation(create_optimizer("adamw", [nn.Parameter(torch.ones(2, dtype=torch.complex64))])) == plain
    assert implementation(create_optimizer("adamw", nn.LazyLinear(3))) == plain
    assert implementation(create_optimizer("adamw", small, fused=False)) == plain
    assert implementation(create_optimizer("adamw", small, foreach=True)) == foreach
    assert implementation(create_optimizer("adamw", small, differentiable=True)) == plain


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop"])
def test_implementations_agree_for_every_dtype_and_channels_last(name, dtype):
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 1, 5, dtype=dtype).to(memory_format=torch.channels_last)
    chosen, plain = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    optimizer = create_optimizer(name, [chosen], lr=0.01)
    reference = create_optimizer(name, [plain], lr=0.01, foreach=False)
    assert any(implementation(optimizer))
    for _ in range(3):
        chosen.grad = torch.randn_like(weight)
        plain.grad = chosen.grad.clone()
        optimizer.step()
        reference.step()
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(dtype, 1e-6)
    torch.testing.assert_close(chosen, plain, atol=tolerance, rtol=tolerance)
    assert not torch.equal(chosen, weight)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "nadam"])
def test_network_moved_to_gpu_takes_the_same_steps(name):
    stayed, moved = two_layers(), two_layers()
    on_cpu, on_gpu = create_optimizer(name, stayed, lr=0.01), create_optimizer(name, moved, lr=0.01)
    moved.cuda()
    signals = torch.randn(64, 6)
    for network, optimizer in ((stayed, on_cpu), (moved, on_gpu)):
        for _ in range(5):
            batch = signals.to(next(network.parameters()).device)
            optimizer.zero_grad()
            F.cross_entropy(network(batch), batch[:, :3].argmax(1)).backward()
            optimizer.step()
    for p, q in zip(stayed.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close(q.cpu(), p, atol=1e-5, rtol=1e-4)


# groups

NORMALIZATIONS = [
    nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), nn.SyncBatchNorm(4), nn.InstanceNorm1d(4, affine=True),
    nn.InstanceNorm2d(4, affine=True), nn.LayerNorm([4, 8]), nn.GroupNorm(2, 4), nn.RMSNorm([4, 8]),
]  # fmt: skip


def names_by_decay(model: nn.Module, **kwargs) -> dict[float, list[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = get_parameter_groups(model, 0.1, 0.05, **kwargs)
    assert all(group["lr"] == 0.1 for group in groups)
    return {group["weight_decay"]: [names[id(p)] for p in group["params"]] for group in groups}


@pytest.mark.parametrize("layer", NORMALIZATIONS, ids=lambda layer: type(layer).__name__)
def test_normalization_layers_do_not_decay_regardless_of_name(layer):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), layer)
    expected = {0.05: ["0.weight"], 0.0: [f"1.{name}" for name, _ in layer.named_parameters()]}
    assert names_by_decay(model) == expected
    assert len(expected[0.0]) >= 1


def test_all_normalization_layers_of_torch_are_tested():
    offered = {name for name in dir(nn) if re.match(r"(?!Lazy|LocalResponse).*Norm(\dd)?$", name)}
    tested = (*(type(layer) for layer in NORMALIZATIONS), nn.InstanceNorm3d)
    assert {name for name in offered if not issubclass(getattr(nn, name), tested)} == set()


def test_trainable_parameters_are_in_one_group_and_frozen_in_none():
    model = nn.ModuleDict({
        "stem": nn.Conv1d(1, 4, 3),
        "scale": nn.PReLU(4),
        "post_norm_mix": nn.Linear(4, 4),
        "head": nn.Linear(4, 4),
        "frozen": nn.Linear(4, 4),
    })  # fmt: skip
    model["tied"] = nn.Linear(4, 4)
    model["tied"].weight = model["head"].weight
    model["frozen"].requires_grad_(False)
    assert names_by_decay(model) == {
        0.05: ["stem.weight", "head.weight"],
        0.0: ["stem.bias", "scale.weight", "post_norm_mix.weight", "post_norm_mix.bias", "head.bias", "tied.bias"],
    }
    assert names_by_decay(model, no_decay_keywords=["TIED"])[0.05] == ["stem.weight", "post_norm_mix.weight"]
    assert names_by_decay(model, no_decay_keywords=())[0.05][1] == "post_norm_mix.weight"


@pytest.mark.parametrize("name", ["cnn1d", "patch_transformer", "resnet18_1d", "wdcnn"])
def test_groups_of_networks_partition_the_parameters(name):
    model = create_model(name, 3)
    groups = get_parameter_groups(model, 1e-3, 0.05)
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())
    assert {p.ndim >= 2 for p in groups[0]["params"]} == {True}
    assert {p.ndim >= 2 for p in groups[1]["params"]} == {False}
    optimizer = create_optimizer("adamw", groups, lr=1.0, weight_decay=1.0)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1e-3, 0.05), (1e-3, 0.0)]


def test_only_decaying_group_shrinks_without_gradient():
    model = nn.Linear(2, 2)
    before = copy.deepcopy(model)
    optimizer = create_optimizer("adamw", get_parameter_groups(model, 0.1, 0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight, before.weight * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before.bias)


@pytest.mark.parametrize(
    ("name", "decays"),
    [("norm1", False), ("post_norm", False), ("Norm", False), ("bias", False), ("abnormal_head", True),
     ("normal_branch", True), ("debiased", True)],
)  # fmt: skip
def test_keyword_matches_complete_words_only(name, decays):
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False)})
    assert list(names_by_decay(model)) == [0.05 if decays else 0.0]


def test_keywords_of_several_words_and_without_words():
    model = nn.ModuleDict({"pos_embed": nn.Linear(2, 2, bias=False), "pos": nn.Linear(2, 2, bias=False)})
    assert names_by_decay(model, no_decay_keywords=["pos_embed"]) == {0.05: ["pos.weight"], 0.0: ["pos_embed.weight"]}
    for keyword, error in (("", ValueError), ("1", ValueError), (1, TypeError)):
        with pytest.raises(error, match=f"no_decay_keywords contains {keyword!r}"):
            names_by_decay(model, no_decay_keywords=[keyword])


def test_rejects_uninitialized_parameters():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="pass a batch through the network first"):
        get_parameter_groups(model, 0.1, 0.1)
    model(torch.ones(1, 2))
    assert list(names_by_decay(model)) == [0.05, 0.0]


def test_omits_empty_group_and_rejects_model_without_parameters():
    assert list(names_by_decay(nn.Linear(2, 2, bias=False))) == [0.05]
    assert list(names_by_decay(nn.BatchNorm1d(2))) == [0.0]
    with pytest.raises(ValueError, match="a Linear has no trainable parameters"):
        get_parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1, 0.1)
    with pytest.raises(TypeError, match="no_decay_keywords is 'bias', expected a list"):
        get_parameter_groups(nn.Linear(2, 2), 0.1, 0.1, "bias")
    with pytest.raises(TypeError, match="model is a generator, expected a network"):
        get_parameter_groups(nn.Linear(2, 2).parameters(), 0.1, 0.1)  # pyright: ignore
    with pytest.raises(ValueError, match="weight_decay is -1"):
        get_parameter_groups(nn.Linear(2, 2), 0.1, -1)


# presets


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train(name):
    preset = getattr(OptimizerConfig, name)()
    network = two_layers()
    optimizer = create_optimizer(model_params=network, **preset)
    assert type(optimizer).__name__.lower() == preset["optimizer_type"]
    assert all(optimizer.defaults[key] == value for key, value in preset.items() if key != "optimizer_type")
    history = losses(network, optimizer, 20)
    assert history[-1] < history[0]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_plain_dicts_that_can_be_changed_and_written_to_yaml(name):
    preset = getattr(OptimizerConfig, name)()
    assert type(preset) is dict
    read = yaml.safe_load(yaml.safe_dump(preset))
    defaults = (create_optimizer(model_params=two_layers(), **settings).defaults for settings in (preset, read))
    assert next(defaults) == next(defaults)
    preset["lr"] = 0.5
    assert getattr(OptimizerConfig, name)()["lr"] != 0.5


def test_presets_differ_as_named():
    default, fast = OptimizerConfig.default(), OptimizerConfig.fast_convergence()
    assert fast["lr"] > default["lr"]
    assert OptimizerConfig.strong_regularization()["weight_decay"] > 10 * default["weight_decay"]
    arguments = inspect.signature(create_sgd_optimizer).parameters
    baseline = {**OptimizerConfig.sgd_baseline()}
    assert baseline.pop("optimizer_type") == "sgd"
    assert baseline == {name: arguments[name].default for name in baseline}
