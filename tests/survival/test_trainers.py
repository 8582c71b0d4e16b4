"""A training killed at any moment, and resumed until it ends, leaves the bits of one that was left alone.

Real processes and real SIGKILLs. The long form kills every trainer 20 times, the short one 3 times:

    pytest tests/survival -m slow -s
"""

import shutil
import signal
import sys

import pytest
import torch

from tests.survival.killing import (
    differences,
    kill_points,
    largest_weight_difference,
    run,
    train,
    train_on_two_ranks,
    was_killed,
    whats_left,
)
from tests.survival.matrix import CASES, IN_SHORT, ON_TWO_RANKS
from whirl.engine.checkpoint import LAST, PREVIOUS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals")
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


def was_killed_anew(target, case, folder, point):
    """Killed at the point; where the run had ended before it, another, from its beginning, may meet it."""
    if was_killed(target, case, folder, point):
        return True
    shutil.rmtree(folder)
    folder.mkdir()
    return was_killed(target, case, folder, point)


def survives(target, case, tmp_path, points):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert run(target, case, whole) == 0
    kills = [point for point in points if was_killed_anew(target, case, broken, point)]
    assert run(target, case, broken) == 0
    expected, found = whats_left(whole), whats_left(broken)
    differ, weights = differences(expected, found), largest_weight_difference(expected, found)
    print(f"\n{case}: {len(kills)} kills, max |dw| = {weights}, {len(expected)} values compared; {kills}")
    assert [point for point in points if point not in kills and point.after_s is None] == []
    assert kills
    assert differ == []
    assert weights == 0.0


@pytest.mark.parametrize(
    ("case", "n_kills"), [*((case, 3) for case in IN_SHORT), *(pytest.param(case, 20, marks=SLOW) for case in CASES)]
)
def test_a_killed_training_ends_in_the_same_bits(case, n_kills, tmp_path):
    survives(train, case, tmp_path, kill_points(n_kills, seed=case))


@pytest.mark.parametrize(
    ("case", "n_kills"), [("bf16", 3), *(pytest.param(case, 20, marks=SLOW) for case in ON_TWO_RANKS)]
)
def test_one_of_two_ranks_killed_ends_both_and_they_resume_in_the_same_bits(case, n_kills, tmp_path):
    """Under the agent of `torchrun`; from outside, agent and ranks die together."""
    survives(train_on_two_ranks, case, tmp_path, kill_points(n_kills, seed=f"{case} on two ranks", n_ranks=2))
    assert list(tmp_path.glob("torchelastic_*"))  # what the agent leaves, not among everybody's temporary files


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def empty(content):
    return b""


@pytest.mark.parametrize("damage", [cut, pytest.param(flip, marks=SLOW), pytest.param(empty, marks=SLOW)])
def test_a_broken_last_checkpoint_falls_back_to_the_one_before(damage, tmp_path):
    def break_and_train(case, folder, point):
        last = folder / LAST
        assert (folder / PREVIOUS).is_file()
        last.write_bytes(damage(last.read_bytes()))
        train(case, folder, point)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        assert run(train, "bf16", folder) == 0
    assert run(break_and_train, "bf16", broken) == 0
    assert differences(whats_left(whole), whats_left(broken)) == []


def train_tracked(case, folder, point):
    import warnings

    warnings.simplefilter("ignore")  # MLflow's own use of SQLAlchemy
    train(case, folder, point)


def scalars_of(folder):
    """What TensorBoard and the last MLflow run show: by name, `{epoch: value}`."""
    import warnings

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "board")).Reload()
    shown = {tag: {event.step: event.value for event in board.Scalars(tag)} for tag in board.Tags()["scalars"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = mlflow_client(folder)
        run = max(client.search_runs(["1"]), key=lambda run: run.info.start_time)
        assert run.info.status == "FINISHED"
        for name in run.data.metrics:
            shown[f"mlflow/{name}"] = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
    return {name: values for name, values in shown.items() if "time" not in name}


def mlflow_client(folder):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'runs.db'}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_trackers_show_a_killed_training_as_if_it_had_not_been(tmp_path):
    """Killed from inside alone: within its first moments there is no store of MLflow's yet."""
    import warnings

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow_client(folder).create_experiment("survival")
    assert run(train_tracked, "tracked", whole) == 0
    for point in kill_points(10, seed="tracked")[2:]:
        assert run(train_tracked, "tracked", broken, point) == -signal.SIGKILL
    assert run(train_tracked, "tracked", broken) == 0
    assert len(scalars_of(whole)) >= 10
    assert scalars_of(broken) == scalars_of(whole)
    weights = [torch.load(folder / LAST, weights_only=True)["training"]["model"] for folder in (whole, broken)]
    assert all(map(torch.equal, weights[0].values(), weights[1].values()))
