"""Tests of studies: their settings and invalid arguments."""

import optuna
import pytest
from optuna.distributions import FloatDistribution

from tests.tuning.studies import SPACE
from whirl.tuning.storage import open_storage
from whirl.tuning.study import describe_space, open_study


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
