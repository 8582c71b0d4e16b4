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
from tests.survival import matrix
from whirl.callbacks import EMA, SWA, EarlyStopping
from whirl.data.map_store import MapDataset
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.callbacks import Callback
from whirl.optim import SAM
from whirl.training import (
    CNNTrainer,
    DistillationTrainer,
    MixedPrecisionTrainer,
    PINNTrainer,
    ProgressiveResizingTrainer,
    SpectrogramTrainer,
    Trainer,
)

N, K, EPOCHS, BATCH = 26, 3, 3, 4
PLAIN = ["Trainer", "CNNTrainer", "MixedPrecisionTrainer"]
OWN_DATA = ["PINNTrainer", "DistillationTrainer", "ProgressiveResizingTrainer", "stored maps"]

CHOICES = {
    "trainer": [*PLAIN, *OWN_DATA],
    "loader": ["shuffled", "generator", "list", "iterable"] * 6 + ["workers"],
    "target": ["classes", "soft", "binary", "multilabel", "regression", "ignored"],
    "wrapper": ["plain", "parallel", "passthrough", "compiled"],
    "precision": ["32", "bf16", "fp16"],
    "interruption": ["batch", "epoch", "twice"],
    "callback": ["none", "EMA", "SWA", "EarlyStopping"],
    "accumulation": [1, 3],
    "metrics": [False, True],
    "schedule": ["none", "onecycle", "step"],
    "optimizer": ["AdamW", "AdamW", "SAM"],
    "validation": ["epochs", "epochs", "also every 2 steps"],
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


def plain_kit(drawn, wrap):
    """Return the network, the loaders, and the criterion for what a user brings to a plain trainer."""
    generator = torch.Generator().manual_seed(1)
    signals = torch.randn(N, 1, 6, generator=generator)
    targets, criterion, n_out = targets_for(drawn["target"], signals, generator)
    data = TensorDataset(signals, targets)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, n_out))
    return wrap(network), loader_for(drawn["loader"], data), loader_for("list", data), {"criterion": criterion}


def own_kit(drawn, wrap, folder):
    """Return the same for a trainer that needs windows."""
    if drawn["trainer"] == "PINNTrainer":
        data, model = matrix.journal_windows(), matrix.network(len(matrix.JOURNAL_CLASSES))
    elif drawn["trainer"] == "stored maps":
        transform = TimeFrequency("stft", 1000, 16, 16)
        data, model = MapDataset(matrix.windows(), transform, folder.parent / "maps"), matrix.map_network()
    else:
        data, model = matrix.windows(), matrix.network()
    size = 16 if drawn["trainer"] == "PINNTrainer" else 8
    train, val = (matrix.own_loader(data, shuffle, batch_size=size) for shuffle in (True, False))
    return wrap(model), train, val, {}


def optimizer_for(kind, model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return SAM(optimizer) if kind == "SAM" else optimizer


def new_trainer(drawn, folder, *callbacks):
    torch.manual_seed(7)
    wrap = WRAPPERS[drawn["wrapper"]]
    is_plain = drawn["trainer"] in PLAIN
    model, train, val, options = plain_kit(drawn, wrap) if is_plain else own_kit(drawn, wrap, folder)
    optimizer = optimizer_for(drawn["optimizer"], model)
    n_batches = 7 if is_plain else len(train)
    n_steps = math.ceil(n_batches / drawn["accumulation"])
    schedule = {
        "none": lambda: None,
        "onecycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=EPOCHS * n_steps),
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    }[drawn["schedule"]]()
    extra = {"none": [], "EMA": [EMA(0.9)], "SWA": [SWA(1)], "EarlyStopping": [EarlyStopping(patience=2)]}
    metric = "rmse" if drawn["target"] == "regression" else "f1_macro"
    options |= {
        "device": "cpu", "lr_scheduler": schedule, "checkpoint_dir": folder,
        "callbacks": [*extra[drawn["callback"]], *callbacks], "gradient_accumulation_steps": drawn["accumulation"],
        "metrics": [metric] if drawn["metrics"] and drawn["target"] != "soft" else [],
        "validate_every": None if drawn["validation"] == "epochs" else 2,
    }  # fmt: skip
    return make(drawn, model, optimizer, train, val, options)


def make(drawn, model, optimizer, train, val, options):
    kind, precision = drawn["trainer"], {"mixed_precision": drawn["precision"]}
    if kind == "MixedPrecisionTrainer":
        return MixedPrecisionTrainer(
            model, train, optimizer, options.pop("criterion"), precision=drawn["precision"], val_loader=val, **options
        )
    options |= precision
    if kind == "DistillationTrainer":
        options |= {"train_loader": train, "val_loader": val, "cache_teacher": drawn["accumulation"] == 1}
        return DistillationTrainer(matrix.network(width=8), model, None, optimizer, **options)
    if kind == "ProgressiveResizingTrainer":
        stages, method = [(128, 1), (256, 1), (matrix.WINDOW, 1)], "crop" if drawn["metrics"] else "interpolate"
        trainer = ProgressiveResizingTrainer(model, optimizer, None, schedule=stages, resize_method=method, **options)
        trainer.set_data(matrix.windows(), matrix.windows(), 8, seed=4)
        return trainer
    if kind == "PINNTrainer":
        options |= {"sample_rate": matrix.RATE_HZ, "balancing": "relobralo" if drawn["metrics"] else "none"}
    kinds = {
        "Trainer": Trainer, "CNNTrainer": CNNTrainer, "PINNTrainer": PINNTrainer, "stored maps": SpectrogramTrainer,
    }  # fmt: skip
    return kinds[kind](model, train, val, optimizer, **options)


def draw(seed):
    drawn = {name: random.Random(f"{seed} {name}").choice(values) for name, values in CHOICES.items()}
    if drawn["trainer"] in OWN_DATA:
        drawn |= {"loader": "windows", "target": "classes"}
    if drawn["precision"] == "fp16":
        drawn["optimizer"] = "AdamW"  # SAM is refused
    if drawn["trainer"] == "PINNTrainer" and drawn["interruption"] == "epoch":
        drawn["interruption"] = "batch"  # the ramp of its weights is as long as the first call of fit
    return drawn


def places(drawn, seed):
    generator = random.Random(f"{seed} place")
    drawn_places = [(generator.randrange(EPOCHS), generator.randrange(6)) for _ in range(2)]
    return sorted(drawn_places) if drawn["interruption"] == "twice" else drawn_places[:1]


def plain(value):
    if isinstance(value, torch.Tensor):
        return str(value.tolist())  # NaN equals NaN
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


@pytest.mark.parametrize("seed", range(8))
def test_random_combinations_resume_to_the_same_bits(seed, tmp_path):
    assert resume_equals_uninterrupted(seed, tmp_path) == [], draw(seed)


@pytest.mark.slow
@pytest.mark.timeout(7200)
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
