"""Bundles say what their run says, and hurt nobody; graphs agree with the run."""

import hashlib
import json
import logging
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.simulation import simulate
from whirl.evaluation.export import METADATA_FILE
from whirl.runs.config import make_config
from whirl.runs.data import prepare
from whirl.runs.export import OperatingRange, export_bundle, export_run, load_bundle
from whirl.runs.prediction import load_diagnoser, predict
from whirl.runs.run_folder import RunFolder
from whirl.runs.training import train_run

CLASSES = ("healthy", "misalignment", "imbalance")
QUICK = {"epochs": 1, "batch_size": 16, "device": "cpu", "threads": 1, "precision": "32", "window": 2048}

pytestmark = pytest.mark.filterwarnings("ignore:windows of .* are too short to resolve:UserWarning")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "recordings"
    save_dataset(simulate(5, 1, CLASSES, seed=2, sampling_rate_hz=2560, n_samples=8192), folder)
    return folder


def train(recordings, folder, **settings):
    return train_run(make_config({"data": str(recordings), "model": "wdcnn", **QUICK, **settings}), folder).folder.path


@pytest.fixture(scope="module")
def run(recordings, tmp_path_factory):
    return train(recordings, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    export_bundle(run, out)
    return out


@pytest.fixture
def bundle(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture(scope="module")
def files(recordings):
    return sorted(recordings.glob("*.npz"))


def same(a, b):
    return [d.as_dict() for d in a] == [d.as_dict() for d in b]  # to the bit


def test_a_bundle_says_what_its_run_says(run, exported, files, tmp_path):
    alone = shutil.copytree(exported, tmp_path / "elsewhere")
    assert sorted(path.name for path in alone.iterdir()) == ["bundle.json", "model.safetensors"]
    assert same(predict(alone, files), predict(run, files))


@pytest.mark.parametrize("model", ["hybrid_pinn", pytest.param("order_cnn", marks=pytest.mark.slow)])
def test_a_network_that_looks_at_the_speed_is_bundled_with_its_arguments(recordings, files, tmp_path, model):
    run = train(recordings, tmp_path / "run", model=model)
    assert export_run(run, None, "bundle")[0] == f"bundle: {run / 'bundle'}"
    assert same(predict(run / "bundle", files), predict(run, files))
    arguments = json.loads((run / "bundle" / "bundle.json").read_text())["network"]["arguments"]
    assert arguments["sampling_rate_hz"] == 2560
    with pytest.raises(ValueError, match=f"'{model}' is computed differently for each speed"):
        export_run(run, None, "onnx")


def test_the_description_tells_where_the_network_comes_from(run, recordings, exported):
    description = load_bundle(exported).description
    noted = json.loads((run / "data.json").read_text())
    assert description.fingerprint == noted["fingerprint"]
    trained_on = {entry["source"] for entry in noted["parts"]["train"]}
    seen = [recording for recording in load_dataset(recordings) if recording.source in trained_on]
    rpm, load = [r.rpm for r in seen], [r.load for r in seen]
    assert description.operating_range == OperatingRange(rpm=(min(rpm), max(rpm)), load={"N": (min(load), max(load))})
    metrics = json.loads((run / "metrics.json").read_text())["recording"]
    assert description.scores.accuracy == metrics["accuracy"]
    assert description.scores.recordings == metrics["n"]
    text = (exported / "bundle.json").read_text()
    assert str(recordings) not in text  # nor any other folder
    assert os.sep not in text


def test_the_weights_are_a_file_that_others_read(run, exported):
    saved = torch.load(run / "checkpoints" / "best.pt", weights_only=True)["training"]["model"]
    with safetensors.safe_open(exported / "model.safetensors", "pt") as file:
        names = file.keys()
        assert set(names) == set(saved)
        assert all(torch.equal(file.get_tensor(name), saved[name]) for name in names)


def test_the_same_run_gives_the_same_bytes_again(run, bundle):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    export_bundle(run, bundle)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_folder_that_holds_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'letter\.txt'"):
        export_bundle(run, tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        export_bundle(run, tmp_path / "letter.txt")
    with pytest.raises(ValueError, match="which is no part of a bundle"):
        export_bundle(run, run)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_machine_outside_the_training_is_warned_of(exported, recordings, files, caplog, tmp_path):
    operating_range = load_bundle(exported).description.operating_range
    source = load_dataset(recordings)[0]
    fast = replace(source, rpm=2 * operating_range.rpm[1], load=operating_range.load["N"][0])
    usual = replace(source, rpm=sum(operating_range.rpm) / 2, load=operating_range.load["N"][1])
    unknown = replace(source, rpm=None, load=None)
    with caplog.at_level(logging.WARNING):
        load_diagnoser(exported).diagnose([usual, unknown, fast], ["usual", "unknown", "fast"])
    (message,) = [record.getMessage() for record in caplog.records]
    low, high = operating_range.rpm
    assert message.startswith(f"fast: {2 * high:g} rpm (trained on {low:g} to {high:g} rpm)")


def test_a_run_that_noted_its_operating_range_warns_too_and_needs_no_recordings(run, exported, files, caplog, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("recordings", "moved"))
    RunFolder(copy).update_metadata(operating_range={"rpm": [1.0, 2.0], "load": {}})
    with caplog.at_level(logging.WARNING):
        predict(copy, files[:1])
    assert "trained on 1 to 2 rpm" in caplog.text
    assert export_bundle(copy, tmp_path / "bundle").description.operating_range.rpm == (1.0, 2.0)


def test_recordings_that_are_not_the_runs_give_no_envelope(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    noted = json.loads((copy / "data.json").read_text())
    noted.pop("operating_range", None)
    (copy / "data.json").write_text(json.dumps(noted | {"fingerprint": "0" * 32}))
    with pytest.raises(ValueError, match="not those that the run was started with"):
        export_bundle(copy, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_an_exported_program_agrees_with_the_run(run, recordings, tmp_path):
    path = tmp_path / "model.pt2"
    lines = export_run(run, path, "torch")
    assert lines[0] == str(path)
    facts = {METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=facts).module()
    told = json.loads(facts[METADATA_FILE])
    assert json.loads(told["classes"]) == RunFolder(run).read_config().data.classes
    assert (told["window"], told["sampling_rate_hz"]) == ("2048", "2560")
    data = prepare(RunFolder(run).read_config())
    signals, _, _ = data.windows(data.split.test)[:5]
    logits = load_bundle(export_bundle_of(run, tmp_path)).network.eval()(signals)
    torch.testing.assert_close(program(signals), logits, atol=1e-4, rtol=0)


def export_bundle_of(run, folder):
    export_bundle(run, folder / "bundle")
    return folder / "bundle"


@pytest.mark.slow
def test_onnx_of_a_run_agrees_with_it(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export_run(run, tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    told = session.get_modelmeta().custom_metadata_map
    data = prepare(RunFolder(run).read_config())
    assert tuple(json.loads(told["classes"])) == data.classes
    signals, _, _ = data.windows(data.split.test)[:5]
    (logits,) = session.run(None, {"signals": signals.numpy()})
    expected = load_bundle(export_bundle_of(run, tmp_path)).network.eval()(signals).detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


class Bomb:
    """What a pickle can do: anything."""

    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


@pytest.fixture
def bomb(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    yield pickle.dumps(Bomb())
    assert not (tmp_path / "exploded").exists()


def refused(bundle, *parts):
    with pytest.raises(ValueError) as caught:
        load_bundle(bundle)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(bundle) in message
    for part in parts:
        assert part in message
    return message


def replace_weights(bundle, data):
    """As an attacker would: with the checksum that fits."""
    (bundle / "model.safetensors").write_bytes(data)
    change(bundle, lambda d: d.update(weights_sha256=hashlib.sha256(data).hexdigest()))


def change(bundle, edit):
    description = json.loads((bundle / "bundle.json").read_text())
    edit(description)
    (bundle / "bundle.json").write_text(json.dumps(description))


def test_a_pickle_in_place_of_the_weights_is_not_opened(bundle, bomb):
    replace_weights(bundle, bomb)
    refused(bundle, "model.safetensors", "not a safetensors file")
    torch.save({"features.1.weight": Bomb()}, bundle / "model.safetensors")
    replace_weights(bundle, (bundle / "model.safetensors").read_bytes())
    refused(bundle, "model.safetensors", "not a safetensors file")


def test_a_pickle_in_place_of_the_description_is_not_opened(bundle, bomb):
    (bundle / "bundle.json").write_bytes(bomb)
    refused(bundle, "bundle.json", "JSON")


def test_weights_of_another_network_are_refused(bundle, run):
    state = safetensors.torch.load_file(bundle / "model.safetensors")
    for strange, said in (
        ({**state, "../../../etc/passwd": torch.zeros(1)}, "../../../etc/passwd"),
        ({**state, "classifier.3.bias": torch.zeros(4)}, "expected torch.float32 [3]"),
        ({**state, "classifier.3.bias": torch.zeros(3, dtype=torch.float64)}, "torch.float64"),
        ({**state, "classifier.3.bias": torch.full((3,), torch.nan)}, "not finite"),
    ):
        replace_weights(bundle, safetensors.torch.save(strange))
        refused(bundle, "model.safetensors", said)


def test_a_flipped_bit_is_found(bundle):
    data = bytearray((bundle / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (bundle / "model.safetensors").write_bytes(data)
    refused(bundle, "model.safetensors", "checksums differ")


def test_a_file_of_a_terabyte_is_not_read(bundle):
    for name in ("model.safetensors", "bundle.json"):
        before = (bundle / name).read_bytes()
        with (bundle / name).open("r+b") as file:
            file.truncate(10**12)  # sparse: takes no room
        refused(bundle, name, "larger than")
        (bundle / name).write_bytes(before)
    load_bundle(bundle)


def test_what_is_missing_is_named(bundle):
    (bundle / "model.safetensors").unlink()
    refused(bundle, "no model.safetensors")
    os.mkfifo(bundle / "model.safetensors")  # would be waited on for ever
    refused(bundle, "no model.safetensors")
    (bundle / "bundle.json").unlink()
    refused(bundle, "no bundle.json")
    with pytest.raises(ValueError, match="not a run folder"):
        predict(bundle, [])


def put(*path, value):
    def edit(description):
        *parents, name = path
        for parent in parents:
            description = description[parent]
        description[name] = value

    return edit


EDITS = {
    "format": (put("format", value=2), "format"),
    "extra key": (put("__init__", value="import os"), "__init__"),
    "extra key inside": (put("network", "code", value="import os"), "code"),
    "unknown network": (put("network", "name", value="os.system"), "unknown model"),
    "network by path": (put("network", "name", value="../../evil"), "unknown model"),
    "network a list": (put("network", "name", value=["wdcnn"]), "network.name"),
    "other arguments": (put("network", "arguments", value={"width": 10**12}), "width"),
    "setting of a path": (put("settings", "data", value="/etc"), "'data' has no place"),
    "setting of a device": (put("settings", "device", value="cuda"), "'device' has no place"),
    "unknown setting": (put("settings", "shell", value="rm"), "'shell' has no place"),
    "nan": (put("operating_range", "rpm", value=[float("nan"), 1.0]), ""),
    "infinite rate": (put("settings", "sampling_rate_hz", value=float("inf")), ""),
    "rate of 0": (put("settings", "sampling_rate_hz", value=0), "sampling_rate_hz"),
    "no rate": (put("settings", "sampling_rate_hz", value=None), "sampling_rate_hz"),
    "1e12 samples": (put("settings", "window", value=10**12), "window"),
    "0 Hz, almost": (put("settings", "sampling_rate_hz", value=1e-300), "sampling_rate_hz"),
    "a filter of 1e14 taps": (put("settings", "band_limit_hz", value=1e-9), "band_share"),
    "1e9 rpm": (put("settings", "rpm_range", value=[1, 1e9]), "rpm_range"),
    "huge integer": (put("settings", "window", value=10**4000), ""),
    "window a text": (put("settings", "window", value="2048; rm -rf /"), "window"),
    "20000 classes": (put("settings", "classes", value=[str(i) for i in range(20_000)]), "classes"),
    "no classes": (put("settings", "classes", value=[]), "classes"),
    "classes objects": (put("settings", "classes", value=[{"a": 1}, {"b": 2}]), "classes"),
    "class that steers a terminal": (put("settings", "classes", value=["a", "b", "\x1b[2J"]), "cannot be printed"),
    "another number of classes": (put("settings", "classes", value=["a", "b"]), "another network"),
    "unknown bearing": (put("settings", "bearing", value="../6205"), "bearing"),
    "checksum no text": (put("weights_sha256", value=0), "weights_sha256"),
    "checksum a path": (put("weights_sha256", value="../../x"), "weights_sha256"),
    "fingerprint": (put("fingerprint", value="<script>"), "fingerprint"),
    "standardization": (put("standardization", value="none"), "standardization"),
    "score above 1": (put("scores", "accuracy", value=2), "accuracy"),
}


@pytest.mark.parametrize(("edit", "said"), EDITS.values(), ids=EDITS)
def test_a_description_that_was_tampered_with_is_refused(bundle, edit, said):
    change(bundle, edit)
    refused(bundle, said)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 10**5, '{"a":' * 10**5, "\xff\xfe", "9" * 10**5, '"' + "a" * 2**21]
)
def test_what_is_no_description_is_refused(bundle, text):
    (bundle / "bundle.json").write_text(text, encoding="latin-1")
    refused(bundle, "bundle.json")


def test_a_network_that_the_description_does_not_describe_is_not_bundled(run, tmp_path):
    """The settings of the run lost, after training, what the network was built with."""
    config = RunFolder(run).read_config()
    assert config.model_name == "wdcnn"
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("name: wdcnn", "name: cnn1d"))
    with pytest.raises(ValueError, match="another network"):
        export_bundle(copy, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_without_the_extra_the_hint_is_how_to_get_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)  # as if it were not installed
    with pytest.raises(
        ImportError, match=r"bundles require safetensors; install it with: pip install 'whirl-diagnostics\[export\]'"
    ):
        export_bundle(run, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
