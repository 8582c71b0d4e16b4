"""Runs with models of descriptors: the default where physics applies, baselines, evaluation and prediction."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from whirl.data.dataset import save_dataset
from whirl.data.simulation import simulate
from whirl.diagnosis.trees import ExtraTrees
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import read_weights
from whirl.evaluation.export import arrays_to_bytes
from whirl.runs.bundle import load_bundle
from whirl.runs.comparison import compare_runs
from whirl.runs.config import make_config
from whirl.runs.data import prepare
from whirl.runs.descriptors import better_baselines, candidates_for
from whirl.runs.evaluation import evaluate
from whirl.runs.export import export_run
from whirl.runs.prediction import predict
from whirl.runs.run_folder import RunFolder
from whirl.runs.training import train

CLASSES = ("healthy", "inner_race", "outer_race")
QUICK = {"device": "cpu", "threads": 1, "precision": "32"}


@pytest.fixture(scope="module")
def recordings():
    """Rolling bearings of a geometry of their own; two sampling rates."""
    rates = ((0, 12_000), (1, 20_000))
    groups = [
        simulate(4, 1, CLASSES, seed, rate, 60_000, bearing="random", snr_db_range=(20, 30)) for seed, rate in rates
    ]
    return [
        replace(each, specimen=f"{seed}-{each.specimen}", source=f"{seed}-{each.source}")
        for (seed, _), group in zip(rates, groups, strict=True)
        for each in group
    ]


@pytest.fixture(scope="module")
def data(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "bearings"
    save_dataset(recordings, folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return train(data, out=tmp_path_factory.mktemp("runs") / "run", **QUICK)


def change_manifest(folder, change):
    """Rewrite the manifest of a data set, row by row."""
    path = folder / "manifest.csv"
    with path.open(newline="") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_descriptors_are_the_default_where_speed_and_bearing_are_known(run, data):
    config = run.folder.read_config()
    assert config.model_name in ("rule", "family_net", "logistic_regression", "extra_trees")
    assert config.model.descriptors == "families"
    assert run.folder.is_finished
    assert not run.folder.checkpoints.exists()
    notes = run.folder.read_data()["notes"]
    assert "sampling rate: each recording keeps its own" in notes
    assert any(note.startswith(f"model: {config.model_name} on families: balanced accuracy") for note in notes)


def test_metrics_contain_the_baselines(run):
    metrics = json.loads(run.folder.metrics_file.read_text())
    assert set(metrics) == {"recording", "baselines", "trust"}
    assert set(metrics["baselines"]) == {
        "untrained rule",
        "logistic regression on descriptors",
        "most frequent class",
    }
    assert metrics["recording"]["macro_f1"] > metrics["baselines"]["most frequent class"]["macro_f1"]
    page = run.folder.report_file.read_text()
    assert "Compared with other diagnosers" in page
    assert "windows of" not in page


def test_evaluation_reproduces_the_metrics(run):
    before = run.folder.metrics_file.read_text()
    lines = evaluate(run.folder.path)
    assert run.folder.metrics_file.read_text() == before
    assert any(line.startswith("  compared with untrained rule: macro F1") for line in lines)


def test_predictions_match_the_evaluation(run, data):
    with run.folder.predictions_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    diagnoses = predict(run.folder.path, [row["file"] for row in rows])
    assert [diagnosis.label for diagnosis in diagnoses] == [row["predicted"] for row in rows]
    for diagnosis, row in zip(diagnoses, rows, strict=True):
        assert diagnosis.probability == pytest.approx(float(row[diagnosis.label]), abs=1e-6)
        assert diagnosis.physics in (*CLASSES[1:], "ball", "no_line_found")
        assert diagnosis.n_windows is None


def test_unknown_speed_or_bearing_is_not_judged(run, recordings, tmp_path):
    faulty = next(each for each in recordings if each.label == "outer_race")
    save_dataset([replace(faulty, rpm=None), replace(faulty, bearing=None, source="b")], tmp_path / "odd")
    files = sorted((tmp_path / "odd").glob("*.npz"))
    assert len(files) == 2
    for diagnosis in predict(run.folder.path, files):
        assert (diagnosis.label, diagnosis.probability, diagnosis.physics) == ("not_judged", None, "not_judged")
        assert diagnosis.reasons[0].startswith("no physics: the ")
        assert "no physics: " in str(diagnosis)
    stated = predict(run.folder.path, files, bearing=faulty.bearing, rpm=faulty.rpm)
    assert {each.label for each in stated} != {"not_judged"}


def test_evaluation_of_other_data_takes_their_bearing_and_speed(run, recordings, tmp_path):
    others = [each for each in recordings if each.specimen in ("0-machine00", "1-machine00")]
    (bearing, rpm) = (others[0].bearing, others[0].rpm)
    save_dataset([replace(each, bearing=None, rpm=None) for each in others[:3]], tmp_path / "data")
    lines = evaluate(run.folder.path, tmp_path / "data", tmp_path / "unknown")
    assert any("3 of 3 recordings cannot be described" in line for line in lines)
    evaluate(run.folder.path, tmp_path / "data", tmp_path / "stated", bearing=bearing, rpm=rpm)
    confidence = [
        json.loads((tmp_path / name / "metrics.json").read_text())["recording"]["mean_confidence"]
        for name in ("unknown", "stated")
    ]
    assert confidence[0] == pytest.approx(1 / 3)  # not judged: every class is equally probable
    assert confidence[1] > 0.5
    with pytest.raises(ValueError, match="rpm requires data"):
        evaluate(run.folder.path, rpm=1800)


def test_network_is_trained_if_its_settings_are_stated(data, tmp_path):
    result = train(data, out=tmp_path / "run", epochs=1, window=1024, **QUICK)
    metrics = json.loads(result.folder.metrics_file.read_text())
    assert result.folder.read_config().model_name == "cnn1d"
    assert result.folder.read_config().model.descriptors == "off"
    assert metrics["baselines"]["untrained rule"]["macro_f1"] > metrics["recording"]["macro_f1"]
    first = evaluate(result.folder.path)[0]
    assert first.endswith(f"instead of {metrics['recording']['macro_f1']:.3f}")
    assert "is better than the trained diagnoser" in first
    assert "is better than the trained diagnoser" in result.folder.report_file.read_text()


@pytest.mark.parametrize("column", ["rpm", "bearing"])
def test_missing_column_gives_a_network_and_advice(recordings, tmp_path, column):
    save_dataset(recordings, tmp_path / "data")
    for file in (tmp_path / "data").glob("*.npz"):
        with np.load(file) as stored:
            content = {name: stored[name] for name in stored if name != column}
        np.savez(file, **content)
    change_manifest(tmp_path / "data", lambda row: row | {column: ""})
    prepared = prepare(make_config({"data": str(tmp_path / "data"), **QUICK}))
    assert prepared.config.model_name == "cnn1d"
    (advice,) = [note for note in prepared.notes if note.startswith("model: ")]
    assert advice.startswith("model: cnn1d, because the ")
    assert "manifest.csv" in advice


def test_configured_bearing_is_for_recordings_that_state_none(recordings, tmp_path):
    save_dataset([*recordings[:-1], replace(recordings[-1], bearing=None)], tmp_path / "data")
    prepared = prepare(make_config({"data": str(tmp_path / "data"), "bearing": "SKF 6203", **QUICK}))
    found = [each.bearing for part in prepared.descriptors.parts.values() for each in part]
    assert found.count("6203") == 1
    assert prepared.config.model.descriptors == "families"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "rule", "epochs": 3}, "epochs is a setting of networks; leave it out for model 'rule'"),
        ({"model": "family_net", "progressive": "512:1,1024:1"}, "trainer is a setting of networks"),
        ({"model": "rule", "descriptors": "evidence"}, "it does not take the descriptors that suit them"),
        ({"model": "wdcn"}, "unknown model 'wdcn'; did you mean 'wdcnn'?"),
    ],
)
def test_rejects_invalid_combinations(data, tmp_path, settings, message):
    with pytest.raises(ValueError, match=".*" + message.replace("?", r"\?")):
        train(data, out=tmp_path / "run", **settings, **QUICK)
    assert not (tmp_path / "run").exists()


def test_callbacks_require_a_network(data, tmp_path):
    with pytest.raises(ValueError, match="callbacks require a network"):
        train(data, out=tmp_path / "run", callbacks=[Callback()], **QUICK)


def test_stated_model_is_trained(data, tmp_path):
    result = train(data, out=tmp_path / "run", model="extra_trees", **QUICK)
    assert result.folder.read_config().model_name == "extra_trees"
    again = train(out=tmp_path / "again", config=result.folder.config_file)
    assert again.metrics == result.metrics


def test_graph_of_another_format_requires_a_network(run, tmp_path):
    with pytest.raises(ValueError, match="is a model of descriptors and not a network"):
        export_run(run.folder.path, tmp_path / "model.onnx", "onnx")


@pytest.mark.parametrize("model", [None, "extra_trees"])
def test_bundle_judges_as_its_run_does(data, tmp_path, model):
    folder = train(data, out=tmp_path / "run", **QUICK, **({} if model is None else {"model": model})).folder.path
    export_run(folder, tmp_path / "bundle", "bundle")
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == ["bundle.json", "model.safetensors"]
    files = sorted(data.glob("*.npz"))[:6]
    bundled, own = predict(tmp_path / "bundle", files), predict(folder, files)
    assert [each.as_dict() for each in bundled] == [each.as_dict() for each in own]
    assert own[0].typicality is not None


def test_damaged_and_hostile_bundles_are_refused(run, tmp_path):
    folder = tmp_path / "bundle"
    export_run(run.folder.path, folder, "bundle")
    weights = folder / "model.safetensors"
    complete = weights.read_bytes()
    weights.write_bytes(complete[:-1] + bytes([complete[-1] ^ 1]))
    with pytest.raises(ValueError, match="checksums differ"):
        load_bundle(folder)
    for hostile in (b"", arrays_to_bytes({"model.reading": np.zeros((4, 2))}), arrays_to_bytes({"x": np.zeros(1)})):
        about = json.loads((folder / "bundle.json").read_text())
        about["weights_sha256"] = hashlib.sha256(hostile).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(about))
        weights.write_bytes(hostile)
        with pytest.raises(ValueError, match=r"model\.safetensors: ") as error:
            load_bundle(folder)
        assert "\n" not in str(error.value)


def test_trees_that_never_end_are_refused():
    trees = ExtraTrees(1).fit(np.arange(20.0)[:, None], np.arange(20) % 2)
    state = trees.state()
    state["left"] = np.zeros_like(state["left"])  # every node leads back to the root
    with pytest.raises(ValueError, match="do not form trees"):
        ExtraTrees(1).load_state(state)


def test_compares_models_of_descriptors_without_latency(run):
    found = compare_runs(run.folder.path, run.folder.path)
    assert found.agreement == 1
    assert (found.a.parameters, found.latency_ratio) == (None, None)
    assert found.a.size_bytes == run.folder.diagnoser_file.stat().st_size
    assert "latency of a window  -" in str(found)


def test_finished_run_can_be_resumed(run, data, caplog):
    before = run.folder.metrics_file.read_text()
    with caplog.at_level("INFO"):
        train(out=run.folder.path, resume=True)
    assert run.folder.metrics_file.read_text() == before
    assert "run already finished" in caplog.text
    assert "epochs" not in caplog.text
    assert "balanced accuracy" in caplog.text  # the reason of the choice, which the run now has as a setting
    assert "as stated" not in caplog.text


def test_rotors_are_described_by_orders(tmp_path):
    save_dataset(simulate(8, 1, ["healthy", "imbalance", "misalignment"], n_samples=60_000), tmp_path / "rotors")
    result = train(tmp_path / "rotors", out=tmp_path / "run", **QUICK)
    config = RunFolder(tmp_path / "run").read_config()
    assert config.model.descriptors in ("evidence", "order_levels", "evidence_and_levels")
    assert "untrained rule" in result.metrics["baselines"]
    file = next((tmp_path / "rotors").glob("*.npz"))
    assert predict(tmp_path / "run", [file])[0].physics is None


def test_parts_in_time_are_described_separately(tmp_path):
    save_dataset(simulate(2, 1, CLASSES, sampling_rate_hz=12_000, n_samples=120_000), tmp_path / "data")
    prepared = prepare(make_config({"data": str(tmp_path / "data"), "split": "time", "allow_leakage": True, **QUICK}))
    parts = prepared.descriptors.parts
    assert len(parts["train"]) == len(parts["test"]) == 6
    assert sum(each.n_samples for each in parts["test"]) < sum(each.n_samples for each in parts["train"])


def test_better_baselines_are_named_best_first():
    metrics = {
        "recording": {"macro_f1": 0.5},
        "baselines": {"a": {"macro_f1": 0.6}, "b": {"macro_f1": 0.9}, "c": {"macro_f1": 0.5}, "d": {"reason": "none"}},
    }
    assert [sentence.split()[1] for sentence in better_baselines(metrics)] == ["b", "a"]
    assert better_baselines({"recording": {"macro_f1": 0.5}}) == []


def test_weights_of_recordings_are_not_ignored(recordings):
    weighted = [replace(each, metadata={"sample_weight": 2.0}) for each in recordings]
    assert candidates_for(make_config({}), recordings)
    assert candidates_for(make_config({}), weighted) == ()
    with pytest.raises(ValueError, match="sample_weight, which model 'extra_trees' does not take: choose a network"):
        candidates_for(make_config({"model": "extra_trees"}), weighted)


NETWORK = {"epochs": 1, "window": 2048, "hop": 20_000, "compared": ["wdcnn"]}


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    return train(data, out=tmp_path_factory.mktemp("runs") / "compared", **QUICK, **NETWORK)


def test_networks_to_compare_with_are_trained_on_the_same_parts(run, compared):
    """The diagnoser is as without them, and settings of networks are for them."""
    network = compared.folder.compared("wdcnn")
    assert compared.folder.read_config().model.name == run.folder.read_config().model.name
    assert compared.metrics["recording"] == run.metrics["recording"]
    assert network.read_config().input.window == 2048
    assert network.is_finished
    assert len(network.read_history()["train_loss"]) == 1
    own, other = (folder.read_data()["parts"] for folder in (compared.folder, network))
    assert {part["specimen"] for part in own["test"]} == {part["specimen"] for part in other["test"]}


def test_networks_to_compare_with_are_in_metrics_and_report(compared):
    scores = json.loads(compared.folder.compared("wdcnn").metrics_file.read_text())["recording"]
    expected = {name: scores[name] for name in ("accuracy", "macro_f1")}
    assert json.loads(compared.folder.metrics_file.read_text())["baselines"]["network wdcnn"] == expected
    assert "network wdcnn" in compared.folder.report_file.read_text()
    evaluate(compared.folder.path)
    assert "as stated" not in compared.folder.report_file.read_text()
    assert json.loads(compared.folder.metrics_file.read_text())["baselines"]["network wdcnn"] == expected


@pytest.mark.parametrize("has_begun", [False, True])
def test_resumed_run_trains_the_networks_that_are_missing(compared, data, tmp_path, has_begun):
    """The run was killed before the network began, or before its first checkpoint."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(compared.folder.path, folder.path)
    network = folder.compared("wdcnn")
    weights = read_weights(network.best_checkpoint)
    shutil.rmtree(network.checkpoints if has_begun else network.path)
    resumed = train(data, out=folder.path, resume=True)
    assert resumed.metrics["baselines"] == compared.metrics["baselines"]
    again = read_weights(network.best_checkpoint)
    assert all(torch.equal(again[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compared": ["cnn2d"]}, "model 'cnn2d' does not take waveforms"),
        ({"compared": ["extra_trees"]}, "unknown network 'extra_trees'"),
        ({"compared": ["wdcnn"], "task": "regression", "target": "rpm"}, "compared requires classes"),
        ({"compared": ["wdcnn"], "pretrained": "runs/a"}, "compared requires networks that start anew"),
    ],
)
def test_networks_to_compare_with_must_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(settings)
