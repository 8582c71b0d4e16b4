"""Tests of studies: their settings and invalid arguments."""

import optuna
import pytest
from optuna.distributions import FloatDistribution

from tests.tuning.studies import SPACE, score
from whirl.tuning.storage import open_storage
from whirl.tuning.study import describe_space, open_study
from whirl.tuning.worker import run_trials


def test_rejects_study_with_other_settings(tmp_path):
    path = tmp_path / "study.log"
    fingerprint = {"model": "wdcnn", "space": describe_space(SPACE), "classes": ["a", "b"]}
    open_study(path, fingerprint=fingerprint)
    open_study(path, fingerprint=fingerprint)
    narrower = describe_space(SPACE | {"x": FloatDistribution(-4, 5)})
    differences = r"\(space.x.low is -4.0, in the study -5.0; pruner is None, in the study median"
    with pytest.raises(ValueError, match=f"other settings {differences}"):
        open_study(path, pruner=None, fingerprint=fingerprint | {"space": narrower})
    with pytest.raises(ValueError, match="classes is a, in the study unset"):
        open_study(path, "second", fingerprint={"classes": "a"}) and open_study(path, "third") and open_study(
            path, "third", fingerprint={"classes": "a"}
        )


def test_rejects_invalid_study_arguments(tmp_path):
    with pytest.raises(ValueError, match="unknown pruner 'best'; expected one of: median, hyperband"):
        open_study(None, pruner="best")
    with pytest.raises(ValueError, match="seed is -1, expected an integer >= 0"):
        open_study(None, seed=-1)
    optuna.create_study(storage=open_storage(tmp_path / "s"), study_name="search")
    with pytest.raises(ValueError, match="minimizes"):
        open_study(tmp_path / "s")


def test_accepts_objects_of_optuna():
    storage = optuna.storages.InMemoryStorage()
    pruner, sampler = optuna.pruners.SuccessiveHalvingPruner(), optuna.samplers.RandomSampler(seed=3)
    study = open_study(storage, pruner=pruner, sampler=sampler)
    assert (study.pruner, study.sampler) == (pruner, sampler)
    assert study.user_attrs["settings"] == {"pruner": "SuccessiveHalvingPruner", "seed": 0, "sampler": "RandomSampler"}
    trials = run_trials(study, SPACE, score, 6)
    plain = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=3))
    expected = [plain.ask(SPACE).params for _ in range(6)]
    assert [trial.params for trial in trials] == expected
    assert open_study(storage, pruner=pruner, sampler=sampler).trials
    with pytest.raises(ValueError, match="sampler is unset, in the study RandomSampler"):
        open_study(storage, pruner=pruner)


@pytest.mark.parametrize("name", ["pruner", "sampler"])
def test_rejects_other_objects(name):
    with pytest.raises(TypeError, match=f"{name} is 3, expected an object of optuna.{name}s"):
        open_study(None, **{name: 3})
