"""Trainers made from a configuration."""

from collections import Counter
from dataclasses import replace

import pytest

from whirl.augment.policies import AutoAugment
from whirl.augment.transformer_augmentation import get_heavy_augmentation
from whirl.callbacks import EarlyStopping
from whirl.runs.config import make_config, with_settings
from whirl.runs.data import prepare
from whirl.runs.run_folder import RunFolder
from whirl.runs.sections import SimulationSection
from whirl.runs.trainers import make_trainer


@pytest.fixture(scope="module")
def data():
    simulation = SimulationSection(n_machines=4, recordings_per_class=1, duration_s=0.5)
    return prepare(make_config({"simulation": simulation, "epochs": 1, "device": "cpu", "threads": 1}))


def trainer_for(data, folder, **settings):
    return make_trainer(replace(data, config=with_settings(data.config, **settings)), RunFolder(folder))


def test_preset_augments_signals_and_patches(data, tmp_path):
    trainer = trainer_for(data, tmp_path, model="patch_transformer", augment="heavy")
    assert "mixup" in repr(trainer.augmentation)
    assert trainer.model.patch_augmentation == get_heavy_augmentation()


def test_policy_augments_signals_only(data, tmp_path):
    trainer = trainer_for(data, tmp_path, model="patch_transformer", augment=[[["scale", 1.0, 0.5]]])
    assert isinstance(trainer.augmentation, AutoAugment)
    assert trainer.model.patch_augmentation is None


def test_augmentation_is_off_by_default(data, tmp_path):
    trainer = trainer_for(data, tmp_path, model="patch_transformer")
    assert trainer.augmentation is None
    assert trainer.model.patch_augmentation is None


def test_settings_select_class_weights_and_loss(data, tmp_path):
    weighted = trainer_for(data, tmp_path, class_weights=True, loss="focal")
    assert type(weighted.criterion).__name__ == "FocalLoss"
    assert weighted.criterion.alpha.shape == (11,)


def test_early_stopping_is_off_unless_a_patience_is_set(data, tmp_path):
    assert not any(isinstance(callback, EarlyStopping) for callback in trainer_for(data, tmp_path).callbacks)
    found = [c for c in trainer_for(data, tmp_path, early_stopping=3).callbacks if isinstance(c, EarlyStopping)]
    assert [callback.patience for callback in found] == [3]


@pytest.mark.parametrize("by", ["class", "specimen", "recording"])
@pytest.mark.parametrize("method", [{}, {"trainer": "progressive", "progressive": [[128, 1], [256, 1]]}])
def test_balanced_training_gives_every_group_the_same_share(data, tmp_path, by, method):
    first = data.split.train[0].specimen
    uneven = [r for r in data.split.train if r.specimen == first or r.label == data.classes[0]]
    settings = {"model": "cnn1d", "window": 256, "hop": 64, "balance": by, "epochs": 2} | method
    trainer = trainer_for(replace(data, split=replace(data.split, train=uneven)), tmp_path, **settings)
    names = [getattr(recording, {"class": "label", "recording": "source"}.get(by, by)) for recording in uneven]
    counts = Counter(names[i] for batch in trainer.train_loader for i in batch[2]["recording"].tolist())
    assert set(counts) == set(names)
    assert max(counts.values()) <= 1.3 * min(counts.values())


def test_specimens_must_be_known_to_be_balanced(data, tmp_path):
    split = replace(data.split, train=[replace(r, specimen=None) for r in data.split.train])
    with pytest.raises(ValueError, match="requires the specimen of every recording"):
        trainer_for(replace(data, split=split), tmp_path, balance="specimen")


def test_sample_weights_of_recordings_reach_the_loss(data, tmp_path):
    weighted = [replace(r, metadata={"sample_weight": 2.0}) for r in data.split.train]
    plain, double = (
        trainer_for(replace(data, split=replace(data.split, train=part)), tmp_path).train_epoch()
        for part in (data.split.train, weighted)
    )
    assert double["loss"] > 1.5 * plain["loss"]


@pytest.mark.parametrize("patience", [0, -1, "soon"])
def test_rejects_an_invalid_patience(patience):
    with pytest.raises(ValueError, match="early_stopping"):
        make_config({"early_stopping": patience})
