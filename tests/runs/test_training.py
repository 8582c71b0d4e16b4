"""Trainers made from a configuration."""

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


@pytest.mark.parametrize("patience", [0, -1, "soon"])
def test_rejects_an_invalid_patience(patience):
    with pytest.raises(ValueError, match="early_stopping"):
        make_config({"early_stopping": patience})
