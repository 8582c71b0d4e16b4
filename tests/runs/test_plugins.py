"""Plug-ins for every registry, as an installed package with entry points or as a module for `--import`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import Command

PLUGIN = '''
"""Registers an entry in every registry of whirl."""

import numpy as np
import torch
from torch import nn

from whirl.augment.policies import register_augmentation
from whirl.callbacks.registry import register_logger
from whirl.data.reading import Content, register_reader
from whirl.diagnosis.registry import register_diagnoser
from whirl.engine.callbacks import Callback
from whirl.evaluation.registry import register_metric
from whirl.losses.registry import register_loss
from whirl.models.registry import register_model
from whirl.optim.scheduler_factory import register_schedule
from whirl.training.registry import register_trainer
from whirl.training.trainer import Trainer


@register_model("tiny_net")
class TinyNet(nn.Module):
    def __init__(self, num_classes, in_channels=1):
        super().__init__()
        self.classifier = nn.Linear(2 * in_channels, num_classes)

    def forward(self, signals):
        return self.classifier(torch.cat([signals.mean(-1), signals.abs().mean(-1)], dim=1))


@register_trainer("tiny_trainer")
class TinyTrainer(Trainer):
    def __init__(self, *args, note="", **kwargs):
        super().__init__(*args, **kwargs)
        print("tiny trainer", note)


@register_loss("tiny_loss")
def tiny_loss(weight=None, label_smoothing=0.0):
    return nn.MultiMarginLoss(weight=weight)


@register_schedule("tiny_schedule")
def tiny_schedule(optimizer, total_steps=1):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, total_steps)


@register_augmentation("tiny_augmentation")
def tiny_augmentation():
    return lambda signals, targets: (-signals, targets)


@register_reader(".tiny")
def read_tiny(path):
    return Content(np.fromfile(path, dtype="<f4")[None], sampling_rate_hz=20480.0, rpm=1800.0)


@register_metric("tiny_metric")
def tiny_metric(predictions, recordings, classes):
    return 0.125


@register_diagnoser("tiny_diagnoser")
class TinyDiagnoser:
    """Assigns the class whose mean descriptor is nearest."""

    def __init__(self, seed=0):
        self.means = np.zeros((0, 0))

    def fit(self, descriptors, targets, classes):
        rows = targets[descriptors.owner]
        self.means = np.stack([descriptors.values[rows == k].mean(0) for k in range(len(classes))])
        return self

    def predict_proba(self, descriptors):
        nearness = np.exp(-np.linalg.norm(descriptors.values[:, None] - self.means, axis=2) / 100)
        return descriptors.mean_over_rows(nearness / nearness.sum(1, keepdims=True))

    def state(self):
        return {"means": self.means}

    def load_state(self, state):
        self.means = state["means"]
        return self


class TinyLogger(Callback):
    rank_zero_only = True

    def __init__(self, facts):
        self.facts = facts

    def on_train_end(self, logs=None):
        (self.facts.folder / "tiny.log").write_text(self.facts.settings["model"])


@register_logger("tiny_logger")
def tiny_logger(facts):
    return TinyLogger(facts)
'''

ENTRY_POINTS = {
    "models": "tiny_net = tiny_plugin:TinyNet",
    "trainers": "tiny_trainer = tiny_plugin:TinyTrainer",
    "losses": "tiny_loss = tiny_plugin:tiny_loss",
    "schedules": "tiny_schedule = tiny_plugin:tiny_schedule",
    "augmentations": "tiny_augmentation = tiny_plugin:tiny_augmentation",
    "readers": ".tiny = tiny_plugin:read_tiny",
    "diagnosers": "tiny_diagnoser = tiny_plugin:TinyDiagnoser",
    "metrics": "tiny_metric = tiny_plugin:tiny_metric",
    "loggers": "tiny_logger = tiny_plugin:tiny_logger",
}

OPTIONS = [
    "--model", "tiny_net", "--trainer", "tiny_trainer", "--trainer-options", "{note: hello}", "--loss", "tiny_loss",
    "--schedule", "tiny_schedule", "--augment", "tiny_augmentation", "--metrics", "tiny_metric", "--log", "tiny_logger",
    "--epochs", "1", "--window", "1024", "--device", "cpu", "--precision", "32",
]  # fmt: skip


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A folder with the module only."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "tiny_plugin.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The module as an installed package: on the path, with the metadata that an installer writes."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "tiny_plugin.py").write_text(PLUGIN)
    info = folder / "tiny_plugin-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[whirl.{group}]\n{point}\n" for group, point in ENTRY_POINTS.items())
    )
    return folder


def whirl(*arguments, cwd, path=None):
    return Command(*arguments, log_folder=cwd, cwd=cwd, path=path).wait()


def installed_whirl(*arguments, cwd):
    """Run the script that an installer writes, whose interpreter does not search the working directory."""
    command = [str(Path(sys.executable).with_name("whirl")), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Files in the format of the plug-in, one folder per class and specimen."""
    import numpy as np

    folder = tmp_path_factory.mktemp("recordings")
    generator = np.random.default_rng(0)
    for label, level in (("quiet", 1), ("loud", 5)):
        for specimen in range(6):
            (folder / label / f"m{specimen}").mkdir(parents=True)
            samples = (level * generator.standard_normal(8192)).astype("<f4")
            samples.tofile(folder / label / f"m{specimen}" / "a.tiny")
    return folder


def check_run(run, done):
    assert done.returncode == 0, done.stderr
    assert "tiny trainer hello" in done.stdout
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["recording"]["registered"] == {"tiny_metric": 0.125}
    assert (run / "tiny.log").read_text() == "tiny_net"


def test_installed_package_is_used_from_every_registry(package, recordings, tmp_path):
    done = whirl("train", recordings, *OPTIONS, "--out", "run", cwd=tmp_path, path=package)
    check_run(tmp_path / "run", done)
    file = next(recordings.rglob("*.tiny"))
    assert whirl("predict", "run", file, cwd=tmp_path, path=package).returncode == 0
    assert whirl("evaluate", "run", cwd=tmp_path, path=package).returncode == 0
    done = whirl("export", "run", cwd=tmp_path, path=package)
    assert done.returncode == 0, done.stderr
    assert whirl("predict", "run/bundle", file, cwd=tmp_path, path=package).returncode == 0
    without_package = whirl("predict", "run", file, cwd=tmp_path)
    assert without_package.returncode == 2
    assert len(without_package.stderr.splitlines()) == 1
    assert "tiny-plugin" in without_package.stderr


def test_diagnoser_of_a_package_is_trained_and_applied(package, recordings, tmp_path):
    options = ("--metrics", "tiny_metric", "--log", "tiny_logger", "--device", "cpu", "--out", "run")
    done = whirl("train", recordings, "--model", "tiny_diagnoser", *options, cwd=tmp_path, path=package)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["recording"]["registered"] == {"tiny_metric": 0.125}
    assert (tmp_path / "run" / "tiny.log").read_text() == "tiny_diagnoser"
    file = next(recordings.rglob("*.tiny"))
    assert whirl("predict", "run", file, cwd=tmp_path, path=package).returncode == 0
    done = whirl("predict", "run", file, cwd=tmp_path)
    assert done.returncode == 2
    assert "tiny-plugin" in done.stderr


def test_imported_module_is_used_from_every_registry(module, recordings, tmp_path):
    (tmp_path / "tiny_plugin.py").write_text((module / "tiny_plugin.py").read_text())
    done = whirl("train", recordings, "--import", "tiny_plugin", *OPTIONS, "--out", "run", cwd=tmp_path)
    check_run(tmp_path / "run", done)
    file = next(recordings.rglob("*.tiny"))
    done = installed_whirl("predict", "run", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "tiny_plugin.py").unlink()
    done = whirl("predict", "run", file, cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot import the plug-in module 'tiny_plugin'" in done.stderr
