"""What a trained run says of recordings that it should not trust, and the files that hold its judgements."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from whirl.cli.main import app
from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.simulation import simulate
from whirl.diagnosis.learned import LearnedDiagnoser
from whirl.diagnosis.selection import suitable_candidates
from whirl.runs.comparison import compare_runs
from whirl.runs.config import make_config, with_settings
from whirl.runs.descriptors import PartDescriptors, choose_model
from whirl.runs.diagnosis_table import DiagnosisTable
from whirl.runs.evaluation import evaluate
from whirl.runs.judgement import Diagnosis
from whirl.runs.prediction import load_diagnoser, predict
from whirl.runs.reading import correct_labels, load_recordings
from whirl.runs.reliability import FALSE_ALARM_RATE, Reliability, reliability_of_diagnoser
from whirl.runs.run_folder import RunFolder
from whirl.runs.training import train

CLASSES = ["healthy", "inner_race", "outer_race"]
SETTINGS = {"device": "cpu", "threads": 1, "precision": "32"}
N, RATE_HZ = 60_000, 12_000


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def read_table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def machines():
    return simulate(10, 1, CLASSES, sampling_rate_hz=RATE_HZ, n_samples=N, snr_db_range=(15, 25))


@pytest.fixture(scope="module")
def data(machines, tmp_path_factory):
    return save_all(machines, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return train(data, out=tmp_path_factory.mktemp("runs") / "run", **SETTINGS).folder.path


@pytest.fixture(scope="module")
def diagnoser(run):
    return load_diagnoser(run)


@pytest.fixture(scope="module")
def fresh():
    """Machines that the run has not seen, of the same population."""
    return simulate(8, 1, CLASSES, seed=9, sampling_rate_hz=RATE_HZ, n_samples=N, snr_db_range=(15, 25))


def save_all(recordings, folder):
    save_dataset(recordings, folder / "bearings")
    return folder / "bearings"


def judge(diagnoser, recordings):
    return diagnoser.diagnose(recordings, [f"file{index}" for index in range(len(recordings))])


def test_machines_of_the_same_population_are_mostly_judged_without_doubt(diagnoser, fresh):
    found = judge(diagnoser, fresh)
    assert all(each.is_judged for each in found)
    assert np.mean([each.status == "ok" for each in found]) > 0.5
    assert np.mean([each.typicality <= FALSE_ALARM_RATE for each in found]) < 0.15
    for each in found:
        assert each.probabilities[each.label] == each.probability
        assert (each.status == "ok") == (not each.reasons)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (np.zeros_like, "silent"),
        (lambda x: np.full_like(x, 2.5), "constant"),
        (lambda x: np.clip(x, -0.5 * x.std(), 0.5 * x.std()), "clipped"),
        (lambda x: np.where(np.arange(x.shape[-1]) == 7, np.nan, x), "NaN"),
        (lambda x: np.where(np.arange(x.shape[-1]) > 30_000, x[:, 30_000:30_001], x), "does not change"),
    ],
    ids=["silent", "constant", "clipped", "nan", "stuck"],
)
def test_signals_without_information_are_not_judged(diagnoser, fresh, spoil, reason):
    (found,) = judge(diagnoser, [replace(fresh[0], signal=spoil(fresh[0].signal))])
    assert (found.status, found.label, found.probability) == ("not_judged", "not_judged", None)
    assert reason in found.reasons[0]


def test_noise_is_never_judged_without_doubt(diagnoser, fresh):
    rng = np.random.default_rng(0)
    noises = [replace(fresh[0], signal=rng.normal(size=(1, N)), specimen=None) for _ in range(20)]
    assert {each.status for each in judge(diagnoser, noises)} == {"doubtful"}


def test_a_fault_that_training_did_not_know_is_doubtful(diagnoser):
    balls = simulate(8, 1, ["ball"], 5, RATE_HZ, N, snr_db_range=(30, 40), severity_range=(0.8, 1.0))
    found = judge(diagnoser, balls)
    shown = [each for each in found if each.physics == "ball"]
    assert shown
    assert all("the untrained diagnosis shows ball, unknown in training" in each.reasons for each in shown)
    assert np.mean([each.status == "ok" for each in found]) < 0.4


def test_unknown_speed_is_not_judged(diagnoser, fresh):
    (found,) = judge(diagnoser, [replace(fresh[0], rpm=None)])
    assert found.status == "not_judged"
    assert "speed of the shaft is unknown" in found.reasons[0]


def test_levels_and_speeds_outside_of_training_are_doubtful(diagnoser, fresh):
    loud, fast = replace(fresh[0], signal=1000 * fresh[0].signal), replace(fresh[0], rpm=20_000)
    found = judge(diagnoser, [loud, fast])
    assert "RMS (trained on" in " ".join(found[0].reasons)
    assert "20000 rpm (trained on" in " ".join(found[1].reasons)


def test_run_without_healthy_machines_doubts_its_unconfirmed_faults(machines, tmp_path):
    faults = [each for each in machines if each.label != "healthy"]
    run = train(save_all(faults, tmp_path), out=tmp_path / "run", **SETTINGS).folder.path
    healthy = [each for each in machines if each.label == "healthy"][:3]
    for each in judge(load_diagnoser(run), healthy):
        if each.physics == "no_line_found":
            assert "no healthy machine was in the training part" in " ".join(each.reasons)


def test_reliability_is_restored_exactly(run, diagnoser, fresh):
    again = Reliability.load(RunFolder(run))
    assert again.temperature == diagnoser.reliability.temperature
    assert [each.typicality for each in judge(load_diagnoser(run), fresh[:3])] == [
        each.typicality for each in judge(diagnoser, fresh[:3])
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_reliability_is_that_of_the_comparison_whatever_the_order_of_classes(machines, seed):
    """A run that is resumed has no comparison; its calibration has to be the same."""
    classes = ["outer_race", "healthy", "inner_race"]
    compared, plain = PartDescriptors({"train": machines}), PartDescriptors({"train": machines})
    choice = choose_model(make_config({"seed": seed}), suitable_candidates(machines), compared)
    model = LearnedDiagnoser(choice.candidate, seed).fit(
        compared.get("train", choice.candidate.kind), [str(each.label) for each in machines], classes
    )
    assert list(compared.held_out) == [(choice.candidate, seed)]
    found, expected = (reliability_of_diagnoser(model, each, classes) for each in (compared, plain))
    assert found.temperature == expected.temperature
    assert found.sets is not None
    assert found.sets.threshold == expected.sets.threshold


def test_a_run_without_reliability_still_predicts(run, data, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "reliability.npz").unlink()
    (found,) = predict(copy, sorted(data.glob("*.npz"))[:1])
    assert found.typicality is None
    assert found.prediction_set is None


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def folder(data, tmp_path):
    """Three recordings with their manifest, a silent one, and a file that is no recording."""
    rows = read_table(data / "manifest.csv")[:3]
    folder = tmp_path / "new"
    folder.mkdir()
    for row in rows:
        (folder / row["file"]).write_bytes((data / row["file"]).read_bytes())
    np.savez(folder / "silent.npz", signal=np.zeros((1, N), np.float32), fs=RATE_HZ)
    (folder / "broken.npz").write_bytes(b"no recording")
    return folder


def test_folders_are_judged_and_unreadable_files_are_rows_too(run, folder, tmp_path):
    done = whirl("predict", run, folder, "--json", "--rpm", 1800, "--bearing", "6205", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 2
    found = {each["file"].rsplit("/")[-1]: each["status"] for each in json.loads(done.stdout)}
    assert found["broken.npz"] == "unreadable"
    assert found["silent.npz"] == "not_judged"
    assert len(found) == 5
    rows = read_table(tmp_path / "out.csv")
    assert {row["file"].rsplit("/")[-1]: row["status"] for row in rows} == found
    assert done.stderr.count("broken.npz") == 1


def test_exit_codes(run, folder, data):
    assert whirl("predict", run, data).exit_code == 0
    assert whirl("predict", run, folder / "silent.npz", "--rpm", 1800, "--bearing", "6205").exit_code == 3
    assert whirl("predict", run, folder / "broken.npz").exit_code == 2
    assert whirl("predict", run, folder / "*.mat").exit_code == 2


def test_append_judges_new_files_only(run, data, tmp_path):
    table, files = tmp_path / "out.csv", sorted(data.glob("*.npz"))
    assert whirl("predict", run, *files[:2], "--csv", table).exit_code == 0
    before = table.read_bytes()
    refused = whirl("predict", run, *files, "--csv", table)
    assert refused.exit_code == 2
    assert "--append" in refused.stderr
    assert table.read_bytes() == before
    done = whirl("predict", run, data / "manifest.csv", "--csv", table, "--append")
    assert done.exit_code == 0
    assert table.read_bytes().startswith(before)
    rows = read_table(table)
    assert len(rows) == len({row["file"] for row in rows}) == len(files)
    assert "--csv" in whirl("predict", run, *files, "--append").stderr


def test_page_shows_all_recordings(run, folder, tmp_path):
    whirl("predict", run, folder, "--rpm", 1800, "--bearing", "6205", "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 4
    assert "the signal is silent" in page
    assert "broken.npz" in page
    assert "<script" not in page


# -- the table ---------------------------------------------------------------------------------------


def some(name):
    return Diagnosis(name, "ball", 0.9, {"ball": 0.9, "healthy": 0.1}, None, reasons=("first", "second"))


def test_a_line_that_was_cut_off_is_written_again(tmp_path):
    path = tmp_path / "table.csv"
    with DiagnosisTable(path) as table:
        table.append([some("a.npy"), some("b.npy")])
    complete = path.read_bytes()
    for length in range(complete.index(b"\n") + 1, len(complete)):
        path.write_bytes(complete[:length])
        with DiagnosisTable(path, append=True) as table:
            table.append([some(name) for name in ("a.npy", "b.npy") if name not in table])
        assert path.read_bytes() == complete


def test_names_cannot_run_as_formulas_or_break_lines(tmp_path):
    path = tmp_path / "table.csv"
    names = ["=cmd.npy", "@x\ny.npy", "plain, with comma.npy", 'quoted".npy']
    with DiagnosisTable(path) as table:
        table.append(map(some, names))
    rows = read_table(path)
    assert [row["file"] for row in rows] == ["'=cmd.npy", "'@x y.npy", "plain, with comma.npy", 'quoted".npy']
    with DiagnosisTable(path, append=True) as table:
        assert all(name in table for name in names)


def test_a_table_has_one_writer(tmp_path):
    path = tmp_path / "table.csv"
    code = f"from whirl.runs.diagnosis_table import DiagnosisTable; DiagnosisTable({str(path)!r}, append=True)"
    with DiagnosisTable(path, append=True) as table:
        table.append([some("a.npy")])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process writes to it" in done.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "a line without an end"])
def test_rejects_another_file_without_changing_it(content, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.csv: is not a table of judgements"):
        DiagnosisTable(path, append=True)
    assert path.read_text() == content


# -- corrected labels --------------------------------------------------------------------------------


def test_corrected_labels_replace_those_of_the_data_set(run, data, tmp_path):
    rows = read_table(data / "manifest.csv")
    (tmp_path / "corrections.csv").write_text(f"file,label\n{rows[0]['file']},ball\n")
    config = make_config({"data": str(data), "corrections": str(tmp_path / "corrections.csv")})
    corrected = {Path(each.source).name: each.label for each in load_recordings(config)}
    assert corrected == {row["file"]: "ball" if row is rows[0] else row["label"] for row in rows}
    kept = load_recordings(with_settings(config, classes=["ball"]))
    assert [Path(each.source).name for each in kept] == [rows[0]["file"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nnone.npz,ball\n", "line 2: 0 recordings are called 'none.npz'"),
        ("file,class\na.npz,ball\n", "expected file and label"),
        ("file,label\n{first},\n", "label is empty"),
    ],
)
def test_rejects_corrections_that_do_not_fit(data, tmp_path, text, message):
    first = read_table(data / "manifest.csv")[0]["file"]
    (tmp_path / "corrections.csv").write_text(text.format(first=first))
    with pytest.raises(ValueError, match=message):
        correct_labels(load_dataset(data), tmp_path / "corrections.csv")


def test_evaluation_warns_of_other_operating_conditions(run, fresh, tmp_path):
    faster = save_all([replace(each, rpm=9000.0) for each in fresh[:6]], tmp_path)
    lines = evaluate(run, faster, tmp_path / "out")
    assert any("6 of 6 recordings are outside of the operating range" in line for line in lines)


def test_errors_of_one_kind_take_one_line(run, tmp_path):
    for index in range(5):
        np.save(tmp_path / f"{index}.npy", np.zeros(N))
    for command in (["predict", run, tmp_path], ["diagnose", tmp_path], ["levels", tmp_path]):
        done = whirl(*command)
        assert done.exit_code == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("whirl: ")]
        assert line.startswith("whirl: 5 files: the file does not state its sampling rate")
        assert "--sampling-rate" in line
        assert line.endswith("(0.npy, 1.npy, 2.npy, ...)")


def test_runs_before_and_after_corrections_are_compared_on_the_same_recordings(run, data, tmp_path):
    rows = read_table(RunFolder(run).predictions_file)
    row, held_out = rows[0], sorted({each["specimen"] for each in rows})
    other = next(label for label in CLASSES if label != row["label"])
    (tmp_path / "corrections.csv").write_text(f"file,label\n{Path(row['file']).name},{other}\n")
    changed = {"corrections": str(tmp_path / "corrections.csv"), "test_specimens": held_out}
    after = train(data, out=tmp_path / "after", **changed, **SETTINGS).folder.path
    labels = {each["file"]: each["label"] for each in read_table(RunFolder(after).predictions_file)}
    assert labels[row["file"]] == other
    found = compare_runs(run, after)
    assert found.n_recordings == len(labels)
    predicted = {each["file"]: each["predicted"] for each in read_table(RunFolder(run).predictions_file)}
    assert found.a.accuracy == pytest.approx(np.mean([predicted[file] == labels[file] for file in labels]))
