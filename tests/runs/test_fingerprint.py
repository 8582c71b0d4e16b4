"""What counts as the same recordings: every input of a run is changed; the run is refused, or computes the same."""

import csv
import json
import logging
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.experiments.ablation_options import AblationOptions
from whirl.experiments.physics_ablation import run_physics_ablation
from whirl.runs.config import make_config
from whirl.runs.data import inputs_of, prepare, prepare_run
from whirl.runs.evaluation import evaluate
from whirl.runs.fingerprint import fingerprint_inputs, warn_of_other_versions
from whirl.runs.run_folder import RunFolder
from whirl.runs.training import train

NOISE = np.random.default_rng(0).normal(size=(4, 2, 512)).astype(np.float32)
BASE = [
    Recording(
        noise, 12_000, ("DE", "FE"), "g", label, 1500, 2.0, "N", f"B{index}", f"{index}.csv",
        metadata={"temperature": 40}, bearing="6205", start_sample=5,
    )
    for index, (noise, label) in enumerate(zip(NOISE, ("healthy", "wear") * 2, strict=True))
]  # fmt: skip
CHANGES = {
    "signal": NOISE[0] + np.float32(1e-6), "sampling_rate_hz": 12_800, "channels": ("FE", "DE"), "unit": "m/s^2",
    "label": "wear", "rpm": 1500.1, "load": 2.1, "load_unit": "kN", "specimen": "B9", "start_sample": 6,
    "metadata": {"temperature": 41}, "bearing": "6206", "rotating_race": "outer", "channel_units": ("g", "V"),
}  # fmt: skip


def differing(a, b):
    return {name for name in {**a, **b} if a.get(name) != b.get(name)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_attribute_of_a_recording_counts(name):
    changed = [replace(BASE[0], **{name: CHANGES[name]}), *BASE[1:]]
    expected = {"samples" if name == "signal" else name} | ({"unit"} if name == "channel_units" else set())
    assert differing(fingerprint_inputs(BASE), fingerprint_inputs(changed)) == expected
    assert differing(fingerprint_inputs(BASE[:1], BASE[1:]), fingerprint_inputs([changed[0]], BASE[1:])) == expected


def test_all_attributes_are_tried():
    assert set(CHANGES) == {field.name for field in fields(Recording)} - {"source"}


def test_names_of_files_count_only_where_they_group_recordings():
    renamed = [replace(recording, source=f"moved/{index}") for index, recording in enumerate(BASE)]
    assert fingerprint_inputs(renamed) == fingerprint_inputs(BASE)
    assert differing(fingerprint_inputs([replace(each, source="a") for each in BASE]), fingerprint_inputs(BASE)) == {
        "source"
    }


def test_order_and_part_count():
    assert "samples" in differing(fingerprint_inputs(BASE), fingerprint_inputs(BASE[::-1]))
    assert differing(fingerprint_inputs(BASE), fingerprint_inputs(BASE[:2], BASE[2:])) == {"number of recordings"}


def test_settings_of_a_simulation_count():
    config = make_config({})
    for name, value in config.data.simulation.model_dump().items():
        other = "rolling" if name == "family" else (0.0, 1.0) if name == "snr_db_range" else value + 1
        simulation = config.data.simulation.model_copy(update={name: other})
        changed = config.model_copy(update={"data": config.data.model_copy(update={"simulation": simulation})})
        assert differing(inputs_of(config, BASE), inputs_of(changed, BASE)) == {"simulation"}
    assert inputs_of(config, BASE) == inputs_of(make_config({"seed": 3, "epochs": 2}), BASE)


# ------------------------------------------------------------------------------------------------ runs


SETTINGS = {"model": "cnn1d", "window": 512, "epochs": 1, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a folder of recordings with everything that a manifest can state."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "data").mkdir()
    rows = []
    for index, recording in enumerate(simulate(6, classes=["healthy", "wear"], n_samples=4096)):
        np.savez(folder / "data" / f"{index}.npz", DE=recording.signal[0], FE=recording.signal[0] ** 2)
        rows.append({
            "file": f"{index}.npz", "label": recording.label, "specimen": recording.specimen, "rpm": "1500",
            "load": "2", "load_unit": "N", "sampling_rate": "2560", "unit": "g", "channel_names": "DE FE",
            "bearing": "6205", "rotating_race": "inner", "temperature": "40",
        })  # fmt: skip
    write(folder / "data", rows)
    train(folder / "data", out=folder / "out", **SETTINGS)
    return folder


def write(folder, rows):
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def rows_of(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def rows(run):
    """Rows of the manifest, which is restored after the test."""
    rows = rows_of(run / "data")
    yield [dict(row) for row in rows]
    write(run / "data", rows)


@pytest.mark.parametrize(
    ("column", "text", "name"),
    [
        ("rpm", "2550", "rpm"), ("load", "3", "load"), ("load_unit", "kN", "load_unit"), ("bearing", "6206", "bearing"),
        ("rotating_race", "outer", "rotating_race"), ("temperature", "41", "metadata"), ("specimen", "x", "specimen"),
        ("sampling_rate", "2561", "sampling_rate_hz"), ("label", "wear", "label"),
    ],
)  # fmt: skip
def test_run_refuses_other_facts_by_name(column, text, name, run, rows):
    rows[0][column] = text if rows[0][column] != text else "healthy"
    write(run / "data", rows)
    with pytest.raises(ValueError, match=rf"data: the recordings are not those .* \(other .*{name}.*; start a new run"):
        prepare_run(RunFolder(run / "out"))


def test_run_refuses_other_units(run, rows):
    write(run / "data", [row | {"unit": "m/s^2"} for row in rows])
    with pytest.raises(ValueError, match=r"\(other unit\); start a new run"):
        prepare_run(RunFolder(run / "out"))


def test_run_selects_its_channels_by_name_in_any_order(run, rows):
    expected = prepare_run(RunFolder(run / "out"))
    write(run / "data", [row | {"channel_names": "FE DE"} for row in rows])
    assert prepare_run(RunFolder(run / "out")).inputs == expected.inputs


def test_nothing_is_overwritten_with_other_data(run, rows):
    before = (run / "out" / "predictions.csv").read_bytes()
    write(run / "data", [row | {"rpm": str(1.7 * float(row["rpm"]))} for row in rows])
    for continue_run in (lambda: evaluate(run / "out"), lambda: train(out=run / "out", resume=True)):
        with pytest.raises(ValueError, match="other rpm"):
            continue_run()
    assert (run / "out" / "predictions.csv").read_bytes() == before


def test_renamed_files_give_the_same_results(run, rows):
    expected = prepare_run(RunFolder(run / "out"))
    for row in rows:
        shutil.copy(run / "data" / row["file"], run / "data" / f"renamed_{row['file']}")
        row["file"] = f"renamed_{row['file']}"
    write(run / "data", rows)
    data = prepare_run(RunFolder(run / "out"))
    for part, recordings in data.parts().items():
        for recording, other in zip(recordings, expected.parts()[part], strict=True):
            np.testing.assert_array_equal(recording.signal, other.signal)


def test_other_versions_are_recorded_and_said(run, caplog):
    folder = RunFolder(run / "out")
    assert folder.read_data()["versions"].keys() == {"whirl", "torch", "numpy", "python"}
    with caplog.at_level(logging.WARNING):
        prepare_run(folder)
        assert "was started with" not in caplog.text
        warn_of_other_versions(run, {"torch": "1.0", "python": "2.7", "gone": "1"})
    assert "was started with torch 1.0 (now " in caplog.text
    assert "gone" not in caplog.text


def test_search_worker_with_other_speeds_is_refused(run, rows, tmp_path):
    pytest.importorskip("optuna")
    from whirl.runs.search import search_run
    from whirl.runs.search_folder import resolve_search

    def search(name):
        options = {"data": str(run / "data"), **SETTINGS}
        space = tmp_path / "space.yaml"
        space.write_text("lr: {low: 1.0e-4, high: 1.0e-2, log: true}\n")
        resolved, folder = resolve_search(
            options, None, space, tmp_path / name, trials=1, storage=str(tmp_path / "study.log")
        )
        return search_run(resolved, folder)

    search("a")
    write(run / "data", [row | {"rpm": "1600"} for row in rows])
    with pytest.raises(ValueError, match=r"created with other settings \(recordings\.rpm is "):
        search("b")


def test_ablation_with_other_recordings_is_refused(run, rows, tmp_path):
    def ablate():
        options = AblationOptions(
            arms=["rule"], seeds=1, epochs=1, labels=1, window_s=0.4, device="cpu", out=str(tmp_path)
        )
        return run_physics_ablation(**options.arguments(run / "data"))

    ablate()
    saved = json.loads((tmp_path / "setting.json").read_text())
    assert "torch" in saved["versions"]
    write(run / "data", [row | {"rpm": "1600", "load": "5"} for row in rows])
    with pytest.raises(ValueError, match=r"other settings \(recordings\.rpm, recordings\.load\)"):
        ablate()


def test_data_of_a_run_state_all_inputs(run):
    data = prepare(RunFolder(run / "out").read_config())
    assert data.summary()["inputs"] == dict(data.inputs)
