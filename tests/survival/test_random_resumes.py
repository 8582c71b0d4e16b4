"""Random combinations of what a user may bring, interrupted anywhere, and resumed to the same bits."""

import copy
import math
import random
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tests.engine.helpers import Passthrough
from whirl.callbacks import EMA, SWA, EarlyStopping
from whirl.engine.callbacks import Callback
from whirl.training import CNNTrainer, MixedPrecisionTrainer, Trainer

N, K, EPOCHS, BATCH = 26, 3, 3, 4

CHOICES = {
    "trainer": ["Trainer", "CNNTrainer", "MixedPrecisionTrainer"],
    "loader": ["shuffled", "generator", "list", "iterable"] * 6 + ["workers"],
    "target": ["classes", "soft", "binary", "multilabel", "regression", "ignored"],
    "wrapper": ["plain", "parallel", "passthrough", "compiled"],
    "precision": ["32", "bf16", "fp16"],
    "interruption": ["batch", "epoch", "twice"],
    "callback": ["none", "EMA", "SWA", "EarlyStopping"],
    "accumulation": [1, 3],
    "metrics": [False, True],
    "schedule": ["none", "onecycle", "step"],
}


class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return (self.data[i] for i in torch.randperm(N).tolist())


class Interrupt(Callback):
    def __init__(self, *places):
        self.places = places

    def on_batch_end(self, batch, logs=None):
        if (self.trainer.state.epoch, batch) in self.places:
            self.trainer.state.interrupted = True


WRAPPERS = {
    "plain": lambda model: model,
    "parallel": nn.DataParallel,
    "passthrough": Passthrough,
    "compiled": lambda model: torch.compile(model, backend="eager"),
}


def targets_for(kind, signals, generator):
    labels = torch.arange(N) % K
    if kind == "soft":
        return torch.rand(N, K, generator=generator).softmax(1), None, K
    if kind == "binary":
        return (labels > 0).float(), nn.BCEWithLogitsLoss(), 1
    if kind == "multilabel":
        return torch.randint(2, (N, K), generator=generator).float(), nn.BCEWithLogitsLoss(), K
    if kind == "regression":
        return signals.mean((1, 2)), nn.MSELoss(), 1
    if kind == "ignored":
        return labels.where(torch.arange(N) > 0, -100), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5])), K
    return labels, None, K


def loader_for(kind, data):
    if kind == "list":
        return [tuple(part[i : i + BATCH] for part in data.tensors) for i in range(0, N, BATCH)]
    if kind == "iterable":
        return DataLoader(Stream(data), BATCH)
    generator = torch.Generator().manual_seed(4) if kind == "generator" else None
    workers = {"num_workers": 1, "persistent_workers": True} if kind == "workers" else {}
    return DataLoader(data, BATCH, shuffle=True, generator=generator, **workers)


def new_trainer(drawn, folder, *callbacks):
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(1)
    signals = torch.randn(N, 1, 6, generator=generator)
    targets, criterion, n_out = targets_for(drawn["target"], signals, generator)
    data = TensorDataset(signals, targets)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, n_out))
    model = WRAPPERS[drawn["wrapper"]](network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    n_steps = math.ceil(math.ceil(N / BATCH) / drawn["accumulation"])
    schedule = {
        "none": lambda: None,
        "onecycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=EPOCHS * n_steps),
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    }[drawn["schedule"]]()
    extra = {"none": [], "EMA": [EMA(0.9)], "SWA": [SWA(1)], "EarlyStopping": [EarlyStopping(patience=2)]}
    metric = "rmse" if drawn["target"] == "regression" else "f1_macro"
    options = {
        "val_loader": loader_for("list", data), "lr_scheduler": schedule, "checkpoint_dir": folder,
        "callbacks": [*extra[drawn["callback"]], *callbacks], "gradient_accumulation_steps": drawn["accumulation"],
        "metrics": [metric] if drawn["metrics"] and drawn["target"] != "soft" else [],
    }  # fmt: skip
    loader = loader_for(drawn["loader"], data)
    if drawn["trainer"] == "MixedPrecisionTrainer":
        return MixedPrecisionTrainer(
            model, loader, optimizer, criterion, "cpu", precision=drawn["precision"], **options
        )
    kind = {"Trainer": Trainer, "CNNTrainer": CNNTrainer}[drawn["trainer"]]
    return kind(
        model, loader, optimizer=optimizer, criterion=criterion, device="cpu", mixed_precision=drawn["precision"],
        **options,
    )  # fmt: skip


def draw(seed):
    return {name: random.Random(f"{seed} {name}").choice(values) for name, values in CHOICES.items()}


def places(drawn, seed):
    generator = random.Random(f"{seed} place")
    drawn_places = [(generator.randrange(EPOCHS), generator.randrange(6)) for _ in range(2)]
    return sorted(drawn_places) if drawn["interruption"] == "twice" else drawn_places[:1]


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if "time" not in str(name) and name != "kinds"}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)


def resume_equals_uninterrupted(seed, folder):
    """Return the differences between an uninterrupted training and one that was interrupted."""
    drawn = draw(seed)
    expected = new_trainer(drawn, folder / "a", Interrupt())
    expected.fit(EPOCHS)
    state = plain(copy.deepcopy(expected.state_dict()))
    if drawn["interruption"] == "epoch":
        new_trainer(drawn, folder / "b", Interrupt()).fit(1)
    for place in places(drawn, seed) if drawn["interruption"] != "epoch" else ():
        last = folder / "b" / "last.pt"
        new_trainer(drawn, folder / "b", Interrupt(place)).fit(EPOCHS, last if last.exists() else None)
    torch.manual_seed(99)
    resumed = new_trainer(drawn, folder / "b", Interrupt())
    resumed.fit(EPOCHS, folder / "b" / "last.pt")
    found = plain(resumed.state_dict())
    return [name for name in state if state[name] != found[name]]


@pytest.mark.parametrize("seed", range(6))
def test_random_combinations_resume_to_the_same_bits(seed, tmp_path):
    assert resume_equals_uninterrupted(seed, tmp_path) == [], draw(seed)


@pytest.mark.slow
def test_300_random_combinations_resume_to_the_same_bits(tmp_path):
    counts: dict[str, Counter] = {name: Counter() for name in CHOICES}
    failed = {}
    for seed in range(1000, 1300):
        for name, value in draw(seed).items():
            counts[name][value] += 1
        differences = resume_equals_uninterrupted(seed, tmp_path / str(seed))
        if differences:
            failed[seed] = draw(seed), differences
    for name, counter in counts.items():
        print(f"| {name} | {', '.join(f'{value}: {n}' for value, n in sorted(counter.items(), key=str))} |")
    assert failed == {}
