"""Bundles reproduce the predictions of their run and execute no code; exported graphs give the same logits."""

import contextlib
import hashlib
import itertools
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from whirl.data.dataset import load_dataset, save_dataset
from whirl.data.simulation import simulate
from whirl.engine import files as engine_files
from whirl.evaluation.export import METADATA_FILE
from whirl.runs import bundle as bundle_module
from whirl.runs.bundle import export_bundle, load_bundle
from whirl.runs.config import make_config
from whirl.runs.data import prepare
from whirl.runs.export import export_run
from whirl.runs.operating_range import OperatingRange
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


def are_identical(a, b):
    """Compare what a bundle holds; the detector of unusual recordings stays in the run folder."""
    return [(d.file, d.probabilities, d.prediction_set) for d in a] == [
        (d.file, d.probabilities, d.prediction_set) for d in b
    ]


def test_bundle_predicts_the_same_as_its_run(run, exported, files, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "elsewhere")
    assert sorted(path.name for path in copy.iterdir()) == ["bundle.json", "model.safetensors"]
    assert are_identical(predict(copy, files), predict(run, files))


@pytest.mark.parametrize("model", ["hybrid_pinn", pytest.param("order_cnn", marks=pytest.mark.slow)])
def test_network_that_uses_the_speed_is_bundled_with_its_arguments(recordings, files, tmp_path, model):
    run = train(recordings, tmp_path / "run", model=model)
    assert export_run(run, None, "bundle")[0] == f"bundle: {run / 'bundle'}"
    assert are_identical(predict(run / "bundle", files), predict(run, files))
    arguments = json.loads((run / "bundle" / "bundle.json").read_text())["network"]["arguments"]
    assert arguments["sampling_rate_hz"] == 2560
    with pytest.raises(ValueError, match=f"'{model}' is computed differently for each shaft speed"):
        export_run(run, None, "onnx")


def test_description_has_training_data_and_scores(run, recordings, exported):
    description = load_bundle(exported).description
    saved = json.loads((run / "data.json").read_text())
    assert description.fingerprint == saved["fingerprint"]
    sources = {entry["source"] for entry in saved["parts"]["train"]}
    train = [recording for recording in load_dataset(recordings) if recording.source in sources]
    rpm, load = [r.rpm for r in train], [r.load for r in train]
    assert description.operating_range == OperatingRange.of(train)
    assert description.operating_range.rpm == (min(rpm), max(rpm))
    assert description.operating_range.load == {"N": (min(load), max(load))}
    metrics = json.loads((run / "metrics.json").read_text())["recording"]
    assert description.scores.accuracy == metrics["accuracy"]
    assert description.scores.recordings == metrics["n"]
    text = (exported / "bundle.json").read_text()
    assert str(recordings) not in text  # nor any other folder
    assert os.sep not in text.replace("m/s^2", "")


def test_weights_are_a_safetensors_file(run, exported):
    saved = torch.load(run / "checkpoints" / "best.pt", weights_only=True)["training"]["model"]
    with safetensors.safe_open(exported / "model.safetensors", "pt") as file:
        names = file.keys()
        assert set(names) == set(saved)
        assert all(torch.equal(file.get_tensor(name), saved[name]) for name in names)


def test_exporting_again_gives_the_same_bytes(run, bundle):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    export_bundle(run, bundle)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")], ids=["killed", "full disk"])
def test_interrupted_export_leaves_the_older_or_the_newer_bundle(error, exported, tmp_path, monkeypatch):
    """The export stops at each of its file operations, once and again at the next attempt."""
    weights, text = (exported / "model.safetensors").read_bytes(), (exported / "bundle.json").read_text()
    changed = weights[:-1] + bytes([weights[-1] ^ 1])
    checksums = [hashlib.sha256(each).hexdigest() for each in (weights, changed)]
    for moment in range(14):
        target = shutil.copytree(exported, tmp_path / str(moment))
        for _ in range(2):
            with monkeypatch.context() as patch, contextlib.suppress(Killed, OSError):
                stop_at(moment, error, patch)
                bundle_module._write(target, changed, text.replace(*checksums))
            assert load_bundle(target).description.weights_sha256 in checksums
        bundle_module._write(target, changed, text.replace(*checksums))
        assert load_bundle(target).description.weights_sha256 == checksums[1]
        assert sorted(path.name for path in target.iterdir()) == ["bundle.json", "model.safetensors"]


def stop_at(moment, error, patch):
    """Raise at a file operation; a killed process cleans nothing up."""
    counter = itertools.count()

    def stop(function):
        def stopped(*args, **kwargs):
            if next(counter) == moment:
                if isinstance(error, Killed):
                    for name in ("replace", "unlink"):
                        patch.setattr(Path, name, stop_again)
                raise error
            return function(*args, **kwargs)

        return stopped

    def stop_again(*args, **kwargs):
        raise error

    for name in ("mkstemp", "fsync", "chmod", "replace", "unlink"):
        module = {"mkstemp": engine_files.tempfile, "fsync": engine_files.os}.get(name, Path)
        patch.setattr(module, name, stop(getattr(module, name)))


def test_rejects_folder_with_other_files(run, tmp_path):
    (tmp_path / "letter.txt").write_text("text")
    with pytest.raises(ValueError, match=r"contains 'letter\.txt'"):
        export_bundle(run, tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        export_bundle(run, tmp_path / "letter.txt")
    with pytest.raises(ValueError, match="which is not part of a bundle"):
        export_bundle(run, run)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_recordings_outside_the_operating_range_are_doubtful(exported, recordings):
    operating_range = load_bundle(exported).description.operating_range
    source = load_dataset(recordings)[0]
    low, high = operating_range.rpm
    fast = replace(source, rpm=2 * high, load=operating_range.load["N"][0])
    loud = replace(source, signal=100 * source.signal, rpm=low)
    unknown = replace(source, rpm=None, load=None)
    found = load_diagnoser(exported).diagnose([fast, loud, unknown], ["fast", "loud", "unknown"])
    assert [each.status for each in found] == ["doubtful"] * 3
    texts = [" | ".join(each.reasons) for each in found]
    assert f"{2 * high:g} rpm (trained on {low:g} to {high:g} rpm): the diagnosis is an extrapolation" in texts[0]
    assert "RMS (trained on" in texts[1]
    assert "the speed of the shaft is unknown, in training it was known" in texts[2]
    assert "RMS" not in texts[0] + texts[2]


def test_saved_operating_range_is_used_without_the_recordings(run, exported, files, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("recordings", "moved"))
    RunFolder(copy).update_metadata(operating_range={"rpm": [1.0, 2.0], "load": {}})
    assert any("trained on 1 to 2 rpm" in reason for reason in predict(copy, files[:1])[0].reasons)
    assert export_bundle(copy, tmp_path / "bundle").description.operating_range.rpm == (1.0, 2.0)


def test_rejects_changed_recordings_without_a_saved_operating_range(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    saved = json.loads((copy / "data.json").read_text())
    saved.pop("operating_range", None)
    (copy / "data.json").write_text(json.dumps(saved | {"fingerprint": "0" * 32}))
    with pytest.raises(ValueError, match="not those that the run was started with"):
        export_bundle(copy, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_exported_program_gives_the_same_logits(run, recordings, tmp_path):
    path = tmp_path / "model.pt2"
    lines = export_run(run, path, "torch")
    assert lines[0] == str(path)
    extra_files = {METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=extra_files).module()
    metadata = json.loads(extra_files[METADATA_FILE])
    assert json.loads(metadata["classes"]) == RunFolder(run).read_config().data.classes
    assert (metadata["window"], metadata["sampling_rate_hz"]) == ("2048", "2560")
    data = prepare(RunFolder(run).read_config())
    signals, _, _ = data.windows(data.split.test)[:5]
    logits = load_bundle(export_bundle_of(run, tmp_path)).network.eval()(signals)
    torch.testing.assert_close(program(signals), logits, atol=1e-4, rtol=0)


def export_bundle_of(run, folder):
    export_bundle(run, folder / "bundle")
    return folder / "bundle"


@pytest.mark.slow
def test_exported_onnx_gives_the_same_logits(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export_run(run, tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    data = prepare(RunFolder(run).read_config())
    assert tuple(json.loads(metadata["classes"])) == data.classes
    signals, _, _ = data.windows(data.split.test)[:5]
    (logits,) = session.run(None, {"signals": signals.numpy()})
    expected = load_bundle(export_bundle_of(run, tmp_path)).network.eval()(signals).detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


class CreatesFolder:
    """An object whose pickle executes code when loaded."""

    def __reduce__(self):
        return os.mkdir, (os.environ["CREATED_FOLDER"],)


@pytest.fixture
def malicious_pickle(tmp_path, monkeypatch):
    monkeypatch.setenv("CREATED_FOLDER", str(tmp_path / "created"))
    yield pickle.dumps(CreatesFolder())
    assert not (tmp_path / "created").exists()


def assert_rejected(bundle, *parts):
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
    """Replace the weights and their checksum, as an attacker would."""
    (bundle / "model.safetensors").write_bytes(data)
    edit_description(bundle, lambda d: d.update(weights_sha256=hashlib.sha256(data).hexdigest()))


def edit_description(bundle, edit):
    description = json.loads((bundle / "bundle.json").read_text())
    edit(description)
    (bundle / "bundle.json").write_text(json.dumps(description))


def test_pickled_weights_are_not_loaded(bundle, malicious_pickle):
    replace_weights(bundle, malicious_pickle)
    assert_rejected(bundle, "model.safetensors", "not a safetensors file")
    torch.save({"features.1.weight": CreatesFolder()}, bundle / "model.safetensors")
    replace_weights(bundle, (bundle / "model.safetensors").read_bytes())
    assert_rejected(bundle, "model.safetensors", "not a safetensors file")


def test_pickled_description_is_not_loaded(bundle, malicious_pickle):
    (bundle / "bundle.json").write_bytes(malicious_pickle)
    assert_rejected(bundle, "bundle.json", "JSON")


def test_rejects_weights_of_another_network(bundle, run):
    state = safetensors.torch.load_file(bundle / "model.safetensors")
    for weights, message in (
        ({**state, "../../../etc/passwd": torch.zeros(1)}, "../../../etc/passwd"),
        ({**state, "classifier.3.bias": torch.zeros(4)}, "expected torch.float32 [3]"),
        ({**state, "classifier.3.bias": torch.zeros(3, dtype=torch.float64)}, "torch.float64"),
        ({**state, "classifier.3.bias": torch.full((3,), torch.nan)}, "not finite"),
    ):
        replace_weights(bundle, safetensors.torch.save(weights))
        assert_rejected(bundle, "model.safetensors", message)


def test_rejects_weights_with_a_flipped_bit(bundle):
    data = bytearray((bundle / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (bundle / "model.safetensors").write_bytes(data)
    assert_rejected(bundle, "model.safetensors", "checksums differ")


def test_rejects_oversized_files(bundle):
    for name in ("model.safetensors", "bundle.json"):
        before = (bundle / name).read_bytes()
        with (bundle / name).open("r+b") as file:
            file.truncate(10**12)  # sparse, so it uses no disk space
        assert_rejected(bundle, name, "larger than")
        (bundle / name).write_bytes(before)
    load_bundle(bundle)


def test_rejects_missing_files(bundle):
    (bundle / "model.safetensors").unlink()
    assert_rejected(bundle, "no model.safetensors")
    os.mkfifo(bundle / "model.safetensors")  # reading it would block
    assert_rejected(bundle, "no model.safetensors")
    (bundle / "bundle.json").unlink()
    assert_rejected(bundle, "no bundle.json")
    with pytest.raises(ValueError, match="not a run folder"):
        predict(bundle, [])


def set_value(*path, value):
    def edit(description):
        *parents, name = path
        for parent in parents:
            description = description[parent]
        description[name] = value

    return edit


EDITS = {
    "format": (set_value("format", value=2), "format"),
    "extra key": (set_value("__init__", value="import os"), "__init__"),
    "extra key inside": (set_value("network", "code", value="import os"), "code"),
    "unknown network": (set_value("network", "name", value="os.system"), "unknown model"),
    "network by path": (set_value("network", "name", value="../../network"), "unknown model"),
    "network as list": (set_value("network", "name", value=["wdcnn"]), "network.name"),
    "other arguments": (set_value("network", "arguments", value={"width": 10**12}), "width"),
    "path as a setting": (set_value("settings", "data", value="/etc"), "'data' is not allowed"),
    "device as a setting": (set_value("settings", "device", value="cuda"), "'device' is not allowed"),
    "unknown setting": (set_value("settings", "shell", value="rm"), "'shell' is not allowed"),
    "nan": (set_value("operating_range", "rpm", value=[float("nan"), 1.0]), ""),
    "infinite rate": (set_value("settings", "sampling_rate_hz", value=float("inf")), ""),
    "rate of 0": (set_value("settings", "sampling_rate_hz", value=0), "sampling_rate_hz"),
    "no rate": (set_value("settings", "sampling_rate_hz", value=None), "sampling_rate_hz"),
    "1e12 samples": (set_value("settings", "window", value=10**12), "window"),
    "almost 0 Hz": (set_value("settings", "sampling_rate_hz", value=1e-300), "sampling_rate_hz"),
    "filter of 1e14 taps": (set_value("settings", "band_limit_hz", value=1e-9), "band_share"),
    "1e9 rpm": (set_value("settings", "rpm_range", value=[1, 1e9]), "rpm_range"),
    "huge integer": (set_value("settings", "window", value=10**4000), ""),
    "window as text": (set_value("settings", "window", value="2048; rm -rf /"), "window"),
    "20000 classes": (set_value("settings", "classes", value=[str(i) for i in range(20_000)]), "classes"),
    "no classes": (set_value("settings", "classes", value=[]), "classes"),
    "classes as objects": (set_value("settings", "classes", value=[{"a": 1}, {"b": 2}]), "classes"),
    "class with a control character": (
        set_value("settings", "classes", value=["a", "b", "\x1b[2J"]),
        "cannot be printed",
    ),
    "another number of classes": (set_value("settings", "classes", value=["a", "b"]), "another network"),
    "unknown bearing": (set_value("settings", "bearing", value="../../x"), "bearing"),
    "checksum as number": (set_value("weights_sha256", value=0), "weights_sha256"),
    "checksum as path": (set_value("weights_sha256", value="../../x"), "weights_sha256"),
    "fingerprint": (set_value("fingerprint", value="<script>"), "fingerprint"),
    "standardization": (set_value("standardization", value="none"), "standardization"),
    "score above 1": (set_value("scores", "accuracy", value=2), "accuracy"),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_rejects_manipulated_description(bundle, edit, message):
    edit_description(bundle, edit)
    assert_rejected(bundle, message)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 10**5, '{"a":' * 10**5, "\xff\xfe", "9" * 10**5, '"' + "a" * 2**21]
)
def test_rejects_malformed_description(bundle, text):
    (bundle / "bundle.json").write_text(text, encoding="latin-1")
    assert_rejected(bundle, "bundle.json")


def test_rejects_run_whose_settings_do_not_match_its_weights(run, tmp_path):
    """The configuration names another network than the one that was trained."""
    config = RunFolder(run).read_config()
    assert config.model_name == "wdcnn"
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("name: wdcnn", "name: cnn1d"))
    with pytest.raises(ValueError, match="another network"):
        export_bundle(copy, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_suggests_the_extra_if_safetensors_is_missing(run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)  # as if it were not installed
    with pytest.raises(
        ImportError, match=r"bundles require safetensors; install it with: pip install 'whirl-diagnostics\[export\]'"
    ):
        export_bundle(run, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
