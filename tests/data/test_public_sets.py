"""Public data sets by name, from folders that bearing-datasets builds from local files."""

import logging

import numpy as np
import pytest

from whirl.data.dataset import list_dataset, load_dataset
from whirl.data.public_sets import list_public

SPEC = """
name: rig
title: A rig in the cellar
license: private
citation: none
sources:
  - {{type: local, path: {folder}, include: ["*.npy"]}}
"""
BUILDER = """
import numpy as np
CHANNELS = {
    "DE": {"sensor_location": "test_bearing", "quantity": "acceleration", "unit": "g", "fs": 12000},
    "current": {"sensor_location": "motor_supply", "quantity": "current", "unit": "A", "fs": 12000},
    "temperature": {"sensor_location": "test_bearing", "quantity": "temperature", "unit": "degC", "fs": 10},
}
def recordings(raw):
    for path in sorted(raw.glob("*.npy")):
        x = np.load(path)
        kind = "normal" if path.stem == "a" else "outer+rolling_element" if path.stem == "c" else "inner"
        healthy = kind == "normal"
        yield {
            "recording_id": path.stem, "native_label": path.stem, "fault_type": kind,
            "fault_location": "none" if healthy else "+".join(["test_bearing"] * len(kind.split("+"))),
            "fault_origin": "none" if healthy else "real" if path.stem == "b" else "artificial",
            %s"bearing_model": "6205", "bpfo": 3.585, "bpfi": 5.415, "bsf": 2.357, "ftf": 0.398,
            "speed_rpm": 1500.0, "load": 2.0, "load_unit": "hp", "repetition": 1,
            "signals": {"DE": x, "current": 2 * x, "temperature": x[:50]},
        }
"""


@pytest.fixture(params=[True, False], ids=["with bearings", "without bearings"])
def root(request, tmp_path, monkeypatch):
    """Build a private data set from local files."""
    bearing_datasets = pytest.importorskip("bearing_datasets")
    (tmp_path / "raw").mkdir()
    for index, name in enumerate("abc"):
        np.save(tmp_path / "raw" / f"{name}.npy", np.random.default_rng(index).normal(size=4096))
    spec = tmp_path / "spec"
    spec.mkdir()
    (spec / "dataset.yaml").write_text(SPEC.format(folder=tmp_path / "raw"))
    bearing = '"bearing_id": "B_" + path.stem, ' if request.param else ""
    (spec / "builder.py").write_text(BUILDER % bearing)
    bearing_datasets.build(spec, tmp_path / "built")
    monkeypatch.setenv("BEARING_DATASETS_ROOT", str(tmp_path / "built"))
    return request.param


@pytest.mark.filterwarnings("ignore")
def test_reads_a_built_data_set_with_its_facts(root, caplog):
    with caplog.at_level(logging.INFO):
        healthy, inner, both = load_dataset("dataset:rig")
    assert [each.label for each in (healthy, inner, both)] == ["healthy", "inner_race", "outer_race+ball"]
    np.testing.assert_allclose(inner.signal[0], np.random.default_rng(1).normal(size=4096).astype(np.float32))
    assert (inner.channels, inner.units, inner.sampling_rate_hz) == (("DE", "current"), ("g", "A"), 12_000)
    assert (inner.rpm, inner.load, inner.load_unit) == (1500, 2, "hp")
    assert inner.bearing == "bpfo=3.585, bpfi=5.415, bsf=2.357, ftf=0.398"
    assert inner.metadata["left_out"] == ["temperature (10 Hz)"]
    assert inner.metadata["fault_origin"] == "real"
    assert inner.source == "dataset:rig/b"
    assert inner.specimen == ("rig/B_b" if root else "rig/inner/test_bearing/real")
    assert ("does not state physical bearings" in caplog.text) is not root


@pytest.mark.filterwarnings("ignore")
def test_selects_and_lists_lazily(root):
    assert [entry.label for entry in list_dataset("dataset:rig", ["healthy"])] == ["healthy"]
    assert [entry.label for entry in list_dataset("dataset:rig", where={"fault_origin": ["real"]})] == ["inner_race"]
    assert [each.label for each in load_dataset("dataset:rig", where={"fault_origin": "real"})] == ["inner_race"]
    with pytest.raises(ValueError, match="unknown column 'fault_orign'; did you mean 'fault_origin'"):
        list_dataset("dataset:rig", where={"fault_orign": "real"})
    with pytest.raises(ValueError, match="no recording has fault_origin = imagined"):
        list_dataset("dataset:rig", where={"fault_origin": "imagined"})


@pytest.mark.filterwarnings("ignore")
def test_lists_what_is_known_and_built(root):
    sets = {each.name: each for each in list_public()}
    assert len(sets) > 60
    assert (sets["rig"].is_built, sets["rig"].title, sets["cwru"].is_built) == (True, "A rig in the cellar", False)


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_downloaded(root):
    with pytest.raises(FileNotFoundError, match=r"dataset:cwru: is not built in .*; `bearing-datasets build cwru`"):
        load_dataset("dataset:cwru")
    with pytest.raises(ValueError, match="unknown public data set 'cwruu'; did you mean 'cwru'"):
        load_dataset("dataset:cwruu")


@pytest.mark.filterwarnings("ignore")
def test_commands_list_and_inspect(root):
    from typer.testing import CliRunner

    from whirl.cli.main import app

    done = CliRunner().invoke(app, ["datasets"])
    assert done.exit_code == 0, done.output
    assert "built  rig                  A rig in the cellar" in done.output
    assert "-      cwru " in done.output
    done = CliRunner().invoke(app, ["inspect", "dataset:rig"])
    assert done.exit_code == 0, done.output
    assert "outer_race+ball" in done.output


def test_where_needs_a_public_data_set(tmp_path):
    with pytest.raises(ValueError, match="expected a public data set"):
        load_dataset(tmp_path, where={"a": 1})


def test_a_single_file_of_windows(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((4, 1, 512)), y=[0, 1, 1, 0], fs=12_000)
    assert [each.label for each in load_dataset(tmp_path / "a.npz")] == ["0", "1", "1", "0"]
