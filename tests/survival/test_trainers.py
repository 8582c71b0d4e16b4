"""A training that is killed and resumed until it ends leaves the same bits as an uninterrupted one.

Real processes get SIGKILL. The long form kills every trainer 20 times, the short one 3 times:

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
    outputs_of,
    run,
    train,
    train_on_two_ranks,
    was_killed,
)
from tests.survival.matrix import CASES, IN_SHORT, ON_TWO_RANKS
from whirl.engine.checkpoint import LAST, PREVIOUS

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals"),
    pytest.mark.timeout(3600),
]
SLOW = pytest.mark.slow


def was_killed_or_restarted(target, case, folder, point):
    """Kill at the point; if the run ended before it, start another from the beginning."""
    if was_killed(target, case, folder, point):
        return True
    shutil.rmtree(folder)
    folder.mkdir()
    return was_killed(target, case, folder, point)


def check_survives(target, case, tmp_path, points):
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    uninterrupted.mkdir()
    killed.mkdir()
    assert run(target, case, uninterrupted) == 0
    kills = [point for point in points if was_killed_or_restarted(target, case, killed, point)]
    assert run(target, case, killed) == 0
    expected, found = outputs_of(uninterrupted), outputs_of(killed)
    differ, weights = differences(expected, found), largest_weight_difference(expected, found)
    print(f"\n{case}: {len(kills)} kills, max |dw| = {weights}, {len(expected)} values compared; {kills}")
    assert [point for point in points if point not in kills and point.after_s is None] == []
    assert kills
    assert differ == []
    assert weights == 0.0


@pytest.mark.parametrize(
    ("case", "n_kills"),
    [*((case, 3) for case in IN_SHORT), *(pytest.param(case, 20, marks=SLOW) for case in CASES)],
)
def test_killed_training_ends_with_the_same_bits(case, n_kills, tmp_path):
    check_survives(train, case, tmp_path, kill_points(n_kills, seed=case))


@pytest.mark.parametrize(
    ("case", "n_kills"), [("bf16", 3), *(pytest.param(case, 20, marks=SLOW) for case in ON_TWO_RANKS)]
)
def test_killed_rank_stops_both_and_they_resume_with_the_same_bits(case, n_kills, tmp_path):
    """Under the agent of `torchrun`; a kill from outside hits agent and ranks together."""
    check_survives(train_on_two_ranks, case, tmp_path, kill_points(n_kills, seed=f"{case} on two ranks", n_ranks=2))
    assert list(tmp_path.glob("torchelastic_*"))  # written to this folder, not to the system's


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def empty(content):
    return b""


@pytest.mark.parametrize("damage", [cut, pytest.param(flip, marks=SLOW), pytest.param(empty, marks=SLOW)])
def test_damaged_last_checkpoint_falls_back_to_previous(damage, tmp_path):
    def damage_and_train(case, folder, point):
        last = folder / LAST
        assert (folder / PREVIOUS).is_file()
        last.write_bytes(damage(last.read_bytes()))
        train(case, folder, point)

    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()
        assert run(train, "bf16", folder) == 0
    assert run(damage_and_train, "bf16", killed) == 0
    assert differences(outputs_of(uninterrupted), outputs_of(killed)) == []


def train_tracked(case, folder, point):
    import warnings

    warnings.simplefilter("ignore")  # MLflow's own use of SQLAlchemy
    train(case, folder, point)


def scalars_of(folder):
    """Return the values of TensorBoard and of the last MLflow run: by name, `{epoch: value}`."""
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
def test_trackers_show_a_killed_training_like_an_uninterrupted_one(tmp_path):
    """Kills from inside only, as MLflow's store does not exist at first."""
    import warnings

    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow_client(folder).create_experiment("survival")
    assert run(train_tracked, "tracked", uninterrupted) == 0
    for point in kill_points(10, seed="tracked")[2:]:
        assert run(train_tracked, "tracked", killed, point) == -signal.SIGKILL
    assert run(train_tracked, "tracked", killed) == 0
    assert len(scalars_of(uninterrupted)) >= 10
    assert scalars_of(killed) == scalars_of(uninterrupted)
    weights = [torch.load(folder / LAST, weights_only=True)["training"]["model"] for folder in (uninterrupted, killed)]
    assert all(map(torch.equal, weights[0].values(), weights[1].values()))
