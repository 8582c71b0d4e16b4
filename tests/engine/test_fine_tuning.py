"""Fine-tuning: which layers are taken over and frozen, and that frozen ones do not change."""

import pytest
import torch
from torch import nn

from whirl.callbacks import GradualUnfreezing
from whirl.engine import freeze, load_features
from whirl.engine.checkpoint import save_training
from whirl.engine.fine_tuning import layers_of, output_layers
from whirl.models.registry import create_model, list_models
from whirl.optim import get_layer_decay_groups
from whirl.training import Trainer

N = 24

MODELS = list_models()  # before other tests register theirs


def network(n_classes=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), nn.Flatten(),
        nn.Linear(16, n_classes),
    )  # fmt: skip


def batches():
    torch.manual_seed(1)
    signals, labels = torch.randn(N, 1, 8), torch.arange(N) % 3
    return [(signals[i : i + 6], labels[i : i + 6]) for i in range(0, N, 6)]


def saved(model, folder):
    return save_training(folder, {"model": model.state_dict()}, {}, is_best=True)


def changed(model, before):
    return {name.partition(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
def test_output_layers_are_those_that_depend_on_the_classes(name):
    weights, others = (create_model(name, n_classes, 1).state_dict() for n_classes in (11, 12))
    differing = {key.rpartition(".")[0] for key in weights if weights[key].shape != others[key].shape}
    model = create_model(name, 11, 1)
    assert {key for key, module in model.named_modules() if module in output_layers(model)} == differing


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_frozen_features_do_not_change(wrap):
    model = network()
    before = copy_of(model)
    freeze(model, "features")
    Trainer(wrap(model), batches(), batches(), device="cpu").fit(3)
    assert changed(model, before) == {"6"}


def test_freezes_named_parts_with_their_running_statistics():
    model = network()
    before = copy_of(model)
    freeze(model, "0", "1")
    Trainer(model, batches(), batches(), device="cpu").fit(2)
    assert changed(model, before) == {"3", "4", "6"}


def test_rejects_unknown_parts_and_a_network_that_is_frozen_completely():
    with pytest.raises(ValueError, match="unknown part 'feature'; did you mean 'features'"):
        freeze(network(), "feature")
    with pytest.raises(ValueError, match="leaves no parameter of Sequential to train"):
        freeze(network(), "features", "6")


def test_unfreezes_a_layer_at_a_time_from_the_logits():
    model = network()
    freeze(model, "features")
    seen = []
    trainer = Trainer(
        model, batches(), batches(), device="cpu",
        callbacks=[GradualUnfreezing(every=2), lambda trainer, logs: seen.append(changed(model, before))],
    )  # fmt: skip
    for _ in range(5):
        before = copy_of(model)
        trainer.fit(1)
    assert seen == [{"6"}, {"6"}, {"3", "4", "6"}, {"3", "4", "6"}, {"0", "1", "3", "4", "6"}]


def test_gradual_unfreezing_resumes_to_the_same_bits(tmp_path):
    def new_trainer(**options):
        model = network()
        freeze(model, "features")
        optimizer = torch.optim.AdamW(get_layer_decay_groups(model, 0.01, 0.5))
        return Trainer(
            model, batches(), batches(), optimizer, device="cpu", callbacks=[GradualUnfreezing(1)], **options
        )

    expected = new_trainer()
    expected.fit(4)
    new_trainer(checkpoint_dir=tmp_path).fit(2)
    resumed = new_trainer()
    resumed.fit(4, tmp_path / "last.pt")
    assert changed(resumed.model, expected.model.state_dict()) == set()


def test_loads_features_for_other_classes(tmp_path):
    source, target = network(3), network(5)
    nn.init.ones_(source[0].weight)
    head = target[6].weight.clone()
    assert load_features(target, saved(source, tmp_path)) == ["6.bias", "6.weight"]
    assert target[0].weight.equal(source[0].weight)
    assert target[6].weight.equal(head)


def test_keeps_a_new_head_of_the_same_size_if_asked(tmp_path):
    source, target = network(3), network(3)
    nn.init.ones_(source[6].weight)
    path = saved(source, tmp_path)
    assert load_features(target, path, with_head=False) == ["6.bias", "6.weight"]
    assert not target[6].weight.equal(source[6].weight)
    assert load_features(target, path) == []
    assert target[6].weight.equal(source[6].weight)


def test_rejects_another_network_and_changes_nothing(tmp_path):
    source, target = nn.Sequential(nn.Conv1d(1, 5, 3), *network()[1:]), network()
    before = copy_of(target)
    with pytest.raises(ValueError, match=r"another network: 0.bias is \[5\], expected \[4\]"):
        load_features(target, saved(source, tmp_path))
    assert changed(target, before) == set()


def test_layers_hold_every_parameter_once():
    for name in MODELS:
        model = create_model(name, 3, 1)
        found = [p for layer in layers_of(model) for module in layer for p in module.parameters(recurse=False)]
        assert len(found) == len(set(found)) == len(list(model.parameters()))


def test_learning_rates_decrease_towards_the_input_under_a_schedule():
    model = network()
    optimizer = torch.optim.SGD(get_layer_decay_groups(model, 0.4, 0.5))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2, 0.4]
    Trainer(model, batches(), optimizer=optimizer, lr_scheduler=schedule, device="cpu").fit(1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.02, 0.04])


@pytest.mark.parametrize("layer_decay", [0, 1.5, float("nan")])
def test_rejects_an_invalid_layer_decay(layer_decay):
    with pytest.raises(ValueError, match="layer_decay"):
        get_layer_decay_groups(network(), 0.1, layer_decay)
