"""Maps stored on disk instead of computed in every step."""

import pytest
import torch

from whirl.runs.config import make_config, with_settings
from whirl.runs.data import prepare
from whirl.runs.maps import maybe_cache_maps
from whirl.runs.trainers import make_trainer

BASE = {
    "simulation": {"n_machines": 4, "recordings_per_class": 1, "duration_s": 0.5},
    "window": 2048,
    "epochs": 2,
    "device": "cpu",
    "precision": "32",
}


def settings(**others):
    return make_config(BASE | others)


def test_only_maps_are_cached(tmp_path):
    data = prepare(settings(representation="stft", map_cache=str(tmp_path / "maps")))
    windows = data.windows(data.split.val)
    assert maybe_cache_maps(windows, data.config, "") is windows
    assert maybe_cache_maps(windows, with_settings(data.config, map_cache="off"), "stft") is windows
    maps = maybe_cache_maps(windows, data.config, "stft")[torch.arange(3)][0]
    torch.testing.assert_close(maps, make_trainer(data, None).representation(windows[torch.arange(3)][0]))


@pytest.mark.parametrize("representation", ["stft", ["cwt", "order"]], ids=["one", "several"])
def test_training_on_cached_maps_gives_the_same_weights(tmp_path, representation):
    state_dicts = []
    for cache in ("off", str(tmp_path / "maps")):
        trainer = make_trainer(prepare(settings(representation=representation, map_cache=cache)), None)
        trainer.fit(2)
        state_dicts.append(trainer.model.state_dict())
    assert len(list((tmp_path / "maps").glob("*.maps"))) == 2 * (1 if isinstance(representation, str) else 2)
    torch.testing.assert_close(state_dicts[1], state_dicts[0], rtol=1e-4, atol=1e-5)


def test_rejects_cache_with_augmentation_or_without_maps():
    with pytest.raises(ValueError, match="map_cache stores maps of unchanged windows"):
        settings(representation="stft", map_cache="maps", augment="light")
    with pytest.raises(ValueError, match="map_cache requires trainer 'maps'"):
        settings(trainer="pinn", map_cache="maps")
