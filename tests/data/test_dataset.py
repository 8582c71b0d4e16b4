"""Data sets on disk: manifests, class folders, error messages, and round trips through save_dataset."""

import csv
import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whirl.data.dataset import list_dataset, load_dataset, save_dataset
from whirl.data.manifest import read_listed, read_manifest
from whirl.data.recording import Recording

RNG = np.random.default_rng(0)


def write(path, channels=("X", "Y"), n_samples=64, **known):
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = RNG.normal(size=(len(channels), n_samples)).astype(np.float32)
    np.savez(path, signal=signal, channels=np.array(channels), **known)
    return signal


def manifest(folder, *lines):
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def message_of(error):
    """Return the message of an error and assert that it is one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


# --------------------------------------------------------------------------------------------------- manifest


def test_manifest_overrides_file(tmp_path):
    signal = write(tmp_path / "sub" / "a.npz", fs=1000, rpm=900, unit="V")
    manifest(
        tmp_path,
        "File,LABEL,Specimen_Group,load,RPM,Sampling Rate,unit,channel_names,note,serial,gain,mounted",
        "sub/a.npz, wear ,B1,2 hp,1800,2000,g,H V,two words,007,2.5,true",
    )
    (recording,) = load_dataset(tmp_path, sampling_rate_hz=5)
    np.testing.assert_array_equal(recording.signal, signal)
    assert (recording.label, recording.specimen, recording.rpm) == ("wear", "B1", 1800)
    assert (recording.load, recording.load_unit, recording.unit) == (2.0, "hp", "g")
    assert (recording.sampling_rate_hz, recording.channels) == (2000, ("H", "V"))
    assert recording.metadata == {
        "rpm_in_file": 900.0, "note": "two words", "serial": "007", "gain": 2.5, "mounted": True,
    }  # fmt: skip
    assert recording.source == str(tmp_path / "sub" / "a.npz")


def test_missing_values_come_from_the_file_and_then_from_the_caller(tmp_path):
    write(tmp_path / "a.npz", fs=1000, rpm=900, unit="V")
    write(tmp_path / "b.npz")
    manifest(tmp_path, "file;label;rpm;specimen", "a.npz;wear;;", "b.npz;wear;nan;")
    first, second = load_dataset(tmp_path, sampling_rate_hz=5)
    assert (first.sampling_rate_hz, first.rpm, first.unit, first.specimen) == (1000, 900, "V", None)
    assert (second.sampling_rate_hz, second.rpm, second.unit, second.load) == (5, None, "", None)
    assert first.metadata == second.metadata == {}


@pytest.mark.parametrize(
    ("text", "load", "unit"),
    [
        ("0 hp", 0, "hp"),
        ("1.5e3 N", 1500, "N"),
        ("2,5kN", 2.5, "kN"),
        ("-3", -3, ""),
        ("", None, ""),
        ("11 lb added", 11, "lb added"),
    ],
)
def test_parses_loads(text, load, unit, tmp_path):
    write(tmp_path / "a.npz", fs=1000)
    manifest(tmp_path, "file,label,load", f'a.npz,x,"{text}"')
    (recording,) = load_dataset(tmp_path)
    assert (recording.load, recording.load_unit) == (load, unit)


def test_load_in_words_becomes_metadata(tmp_path):
    write(tmp_path / "a.npz", fs=1000)
    manifest(tmp_path, "file,label,load", "a.npz,x,half")
    (recording,) = load_dataset(tmp_path)
    assert (recording.load, recording.metadata) == (None, {"load_condition": "half"})


def test_labels_are_kept_as_written(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.npz", fs=1000)
    manifest(tmp_path, "file,label", "a.npz,normal", "b.npz,Unwucht (groß)")
    assert [recording.label for recording in load_dataset(tmp_path)] == ["normal", "Unwucht (groß)"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [("Y", ("Y",)), ("Y X", ("Y", "X")), ("H;V", ("H", "V")), ("Acc X|Acc Y|", ("Acc X", "Acc Y")), ("", ("X", "Y"))],
)
def test_channel_names_select_or_rename(names, expected, tmp_path):
    signal = write(tmp_path / "a.npz", fs=1000)
    manifest(tmp_path, "file,label,channel_names", f'a.npz,x,"{names}"')
    (recording,) = load_dataset(tmp_path)
    assert recording.channels == expected
    rows = {"X": 0, "Y": 1, "H": 0, "V": 1, "Acc X": 0, "Acc Y": 1}
    np.testing.assert_array_equal(recording.signal, signal[[rows[name] for name in expected]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["file,class_id", "a.npz,1"], "has no column 'label'; its columns are file, class_id"),
        (["file,label", "b.npz,x", "c.npz,x", "a.npz,x"], "b.npz does not exist; c.npz does not exist; correct"),
        (["file,label", *(f"n{i}.npz,x" for i in range(9))], "n2.npz does not exist; and 6 more; correct"),
        (["file,label", "a.npz,x", "./a.npz,y"], "a.npz is listed in 2 rows"),
        (["file,label", "../a.npz,x"], r"line 2: file '../a.npz' is not a path within the folder"),
        (["file,label", "sub/../../a.npz,x"], "not a path within the folder"),
        (["file,label", "/etc/passwd,x"], "not a path within the folder"),
        (["file,label", r"..\a.npz,x"], "not a path within the folder"),
        (["file,label", r"C:\a.npz,x"], "not a path within the folder"),
        (["file,label", ",x"], "line 2: file '' is not a path within the folder"),
        (["file,label", "a.npz,"], "line 2: the label is empty"),
        (["file,label,rpm", "a.npz,x,fast"], "line 2: rpm is 'fast', expected a number > 0 or an empty cell"),
        (["file,label,sampling_rate", "a.npz,x,0"], "line 2: sampling_rate is '0', expected a number > 0"),
        (["file,label", "notes.xyz,x"], r"notes.xyz has an unknown format \(expected one of: .asc, "),
        (["file,label,channel_names", "a.npz,x,H V W"], "manifest names the channels H V W, the file has X Y"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_manifest_gives_one_line_error(rows, message, tmp_path):
    folder = tmp_path / "data"
    write(folder / "a.npz", fs=1000)
    write(tmp_path / "a.npz", fs=1000)
    (folder / "notes.xyz").write_text("")
    manifest(folder, *rows)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(folder)
    assert str(folder) in message_of(caught)


def test_rejects_binary_manifest(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(ValueError, match=r"manifest\.csv: not a CSV file in UTF-8"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_reads_manifest_written_by_excel(encoding, tmp_path):
    write(tmp_path / "a.npz", fs=1000)
    text = "file;label;Prüfer\r\na.npz;Unwucht (groß) – 5 €;Jörg\r\n"
    (tmp_path / "manifest.csv").write_bytes(text.encode(encoding))
    (entry,) = read_manifest(tmp_path)
    assert (entry.label, entry.metadata) == ("Unwucht (groß) – 5 €", {"Prüfer": "Jörg"})


def test_reading_a_manifest_does_not_open_recordings(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"not an archive")
    manifest(tmp_path, "file,label,rpm", "a.npz,x,1500")
    (entry,) = read_manifest(tmp_path)
    assert (entry.label, entry.rpm, entry.path) == ("x", 1500, tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz: corrupt or truncated"):
        entry.read()


def test_single_files_use_the_nearest_manifest_that_lists_them(tmp_path, monkeypatch):
    for name in ("a/b/near", "a/b/far", "a/b/unlisted", "a/b/c/d/deep"):
        write(tmp_path / f"{name}.npz", fs=1000, rpm=900)
    manifest(tmp_path / "a", "file,label,rpm,specimen", "b/near.npz,x,1,m", "b/far.npz,,1200,m", "b/c/d/deep.npz,x,1,m")
    manifest(tmp_path / "a/b", "file,label,rpm,channel_names", "gone.npz,,-1,", "near.npz,y,1500,Y")
    monkeypatch.chdir(tmp_path / "a/b")
    near, far, unlisted, deep = read_listed(["near.npz", "../b/far.npz", "unlisted.npz", "c/d/deep.npz"])
    assert (near.label, near.rpm, near.channels, near.specimen, near.source) == ("y", 1500, ("Y",), None, "near.npz")
    assert (far.label, far.rpm, far.channels, far.specimen) == (None, 1200, ("X", "Y"), "m")
    assert (unlisted.label, unlisted.rpm) == (None, 900)
    assert (deep.label, deep.rpm) == (None, 900)  # the manifest is three folders above
    manifest(tmp_path / "a/b", "file,rpm", "near.npz,fast")
    with pytest.raises(ValueError, match=r"manifest\.csv: the row of near\.npz: rpm is 'fast'"):
        next(read_listed(["near.npz"]))
    manifest(tmp_path / "a/b", "when,who", "today,me")
    assert next(read_listed(["near.npz"])).rpm == 1


# --------------------------------------------------------------------------------------------- folders per class


def test_class_folders_with_and_without_specimens(tmp_path):
    write(tmp_path / "healthy" / "r1.npz", fs=1000)
    write(tmp_path / "inner race" / "B1" / "r1.npz", fs=1000)
    write(tmp_path / "inner race" / "B2" / "r1.npz", fs=1000)
    for stray in ("README.md", "healthy/notes.txt", ".cache/x.npz", "healthy/.hidden.npz", "healthy/photo.jpg"):
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).write_text("not a recording")
    recordings = load_dataset(tmp_path)
    assert [(recording.label, recording.specimen) for recording in recordings] == [
        ("healthy", None), ("inner race", "B1"), ("inner race", "B2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.npz", r"a\.npz is not in a class folder; add a manifest.csv .* or arrange the files as CLASS/FILE"),
        ("x/b1/c/d.npz", r"x/b1/c/d\.npz is not in a class folder"),
        ("x/a.xyz", r"x/a\.xyz has an unknown format .*; convert or remove them"),
    ],
)
def test_rejects_misplaced_files_in_class_folders(path, message, tmp_path):
    write(tmp_path / "x" / "good.npz", fs=1000)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"")
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(tmp_path)
    assert str(tmp_path) in message_of(caught)


def test_skips_system_files(tmp_path):
    write(tmp_path / "wear" / "a.npz", fs=1000)
    for stray in ("Thumbs.db", "wear/Thumbs.db", "wear/desktop.ini", "~$list.xlsx", "wear/~$a.csv", ".DS_Store"):
        (tmp_path / stray).write_bytes(b"\0")
    assert [entry.path.name for entry in list_dataset(tmp_path)] == ["a.npz"]


def test_rejects_empty_and_missing_folders(tmp_path):
    with pytest.raises(ValueError, match=r"contains no recordings; add a manifest.csv"):
        load_dataset(tmp_path)
    manifest(tmp_path, "file,label")
    with pytest.raises(ValueError, match=r"manifest.csv lists no recordings; add a row"):
        load_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        load_dataset(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------------- channels and classes


def test_classes_are_selected_before_files_are_read(tmp_path):
    write(tmp_path / "wear" / "a.npz", fs=1000)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "b.npz").write_bytes(b"broken")
    assert [recording.label for recording in load_dataset(tmp_path, classes=["wear"])] == ["wear"]
    with pytest.raises(ValueError, match=r"unknown class 'Wear'; did you mean 'wear'\? Expected one of: broken, wear"):
        list_dataset(tmp_path, ["Wear"])


def test_selects_channels_by_name(tmp_path):
    signal = write(tmp_path / "x" / "a.npz", fs=1000)
    (recording,) = load_dataset(tmp_path, channels=["Y"])
    np.testing.assert_array_equal(recording.signal, signal[1:])
    assert recording.signal.base is None or recording.signal.base.size == 64, "the other channel is released"
    remedy = r"name the channels in a channel_names column of manifest\.csv, or .* --channels X,Y$"
    with pytest.raises(ValueError, match=rf"a\.npz: no channel 'Z'; it has \['X', 'Y'\]; {remedy}"):
        load_dataset(tmp_path, channels=["Z"])


def test_error_for_different_channels_suggests_the_common_ones(tmp_path):
    for index in range(3):
        write(tmp_path / "x" / f"a{index}.npz", fs=1000)
    write(tmp_path / "x" / "b.npz", channels=("X",), fs=1000)
    with pytest.raises(ValueError, match=r"have different channels: X Y \(3\), X \(1\); .*--channels X,") as caught:
        load_dataset(tmp_path)
    assert str(tmp_path) in message_of(caught)
    write(tmp_path / "x" / "b.npz", channels=("Z",), fs=1000)
    with pytest.raises(ValueError, match=r"X Y \(3\), Z \(1\); rename channels in the channel_names column"):
        load_dataset(tmp_path)


def test_reorders_channels(tmp_path):
    write(tmp_path / "x" / "a.npz", fs=1000)
    signal = write(tmp_path / "x" / "b.npz", channels=("Y", "X"), fs=1000)
    _, second = load_dataset(tmp_path)
    assert second.channels == ("X", "Y")
    np.testing.assert_array_equal(second.signal, signal[::-1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rejects_nonfinite_samples(value, tmp_path):
    signal = np.zeros((2, 64), dtype=np.float32)
    signal[1, [17, 40]] = value
    (tmp_path / "x").mkdir()
    np.savez(tmp_path / "x" / "a.npz", signal=signal, channels=np.array(["X", "Y"]), fs=1000)
    with pytest.raises(ValueError, match=rf"a\.npz: channel Y is {value} at sample 17 \(2 NaN or infinite samples"):
        load_dataset(tmp_path)


# --------------------------------------------------------------------------------------------------- writing


def assert_same(written, read):
    for field in dataclasses.fields(Recording):
        if field.name == "signal":
            np.testing.assert_array_equal(read.signal, written.signal)
            assert read.signal.dtype == np.float32
        elif field.name not in ("source", "start_sample"):
            assert getattr(read, field.name) == getattr(written, field.name), field.name


TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=9)
NAME = TEXT.map(str.strip).filter(bool)
VALUE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(st.integers())
POSITIVE = st.floats(1e-3, 1e6)
RECORDING = st.builds(
    lambda **known: Recording(RNG.normal(size=(2, 16)), **known),
    sampling_rate_hz=POSITIVE,
    channels=st.sampled_from([("X", "Y"), ("Acc 1", "Acc 2"), ("a,b", "c;d")]),
    unit=st.sampled_from(["", "g", "m/s^2"]),
    label=NAME,
    rpm=st.none() | POSITIVE,
    load=st.none() | st.floats(-1e6, 1e6),
    load_unit=st.sampled_from(["", "N", "hp"]),
    specimen=st.none() | NAME,
    metadata=st.dictionaries(NAME | st.sampled_from(["load", "fs", "rpm", "label", "machine id"]), VALUE, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(recordings=st.lists(RECORDING, min_size=1, max_size=3))
def test_saved_recordings_are_restored(recordings, tmp_path_factory):
    shared = {"channels": recordings[0].channels, "unit": recordings[0].unit}
    recordings = [dataclasses.replace(recording, **shared) for recording in recordings]
    folder = tmp_path_factory.mktemp("data")
    save_dataset(recordings, folder)
    for written, read in zip(recordings, load_dataset(folder), strict=True):
        assert_same(written, read)


def test_restores_single_channel_with_space_in_its_name(tmp_path):
    save_dataset([Recording(np.zeros((1, 16)), 1, channels=("Acc X",), label="x")], tmp_path)
    assert load_dataset(tmp_path)[0].channels == ("Acc X",)


def test_numpy_metadata_are_restored_as_python_values(tmp_path):
    values = {"severity": np.float32(0.5), "index": np.int64(3), "pair": np.array([1.5, 2.0])}
    save_dataset([Recording(np.zeros(16), 1, label="x", metadata=values)], tmp_path)
    assert load_dataset(tmp_path)[0].metadata == {"severity": 0.5, "index": 3, "pair": [1.5, 2.0]}


def recordings_then(error):
    yield Recording(np.zeros(16), 1, label="x")
    raise error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
@pytest.mark.parametrize("exists", [True, False])
def test_failed_save_leaves_nothing_behind(error, exists, tmp_path):
    folder = tmp_path / "out"
    if exists:
        folder.mkdir()
    with pytest.raises(type(error)):
        save_dataset(recordings_then(error), folder)
    assert folder.exists() == exists
    assert not exists or not list(folder.iterdir())


def test_save_consumes_a_generator_lazily(tmp_path):
    """The first recording is on disk before the generator yields the second."""
    seen = []

    def recordings():
        for index in range(3):
            seen.append(len(list((tmp_path / "out").rglob("*.npz"))))
            yield Recording(np.zeros(16), 1, label=f"c{index}")

    save_dataset(recordings(), tmp_path / "out")
    assert seen == [0, 1, 2]


def test_manifest_appears_after_all_files(tmp_path):
    """A process that watches the folder never sees a manifest that lists missing files."""
    folder, stop, gaps = tmp_path / "out", threading.Event(), []

    def watch():
        while not stop.is_set():
            if (folder / "manifest.csv").exists():
                with (folder / "manifest.csv").open(newline="") as file:
                    gaps.extend(row["file"] for row in csv.DictReader(file) if not (folder / row["file"]).exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    save_dataset((Recording(np.zeros(16), 1, label="x") for _ in range(50)), folder)
    stop.set()
    watcher.join()
    assert gaps == []
    assert len(read_manifest(folder)) == 50


def test_save_rejects_nonempty_folder_and_unlabeled_recordings(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not an empty folder; choose a new one"):
        save_dataset([Recording(np.zeros(16), 1, label="x")], tmp_path)
    with pytest.raises(ValueError, match="is not an empty folder"):
        save_dataset([], tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValueError, match="no recordings to write"):
        save_dataset([], tmp_path / "out")
    with pytest.raises(ValueError, match=r"run7\.wav: has no label"):
        save_dataset([Recording(np.zeros(16), 1, source="run7.wav")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------- real folders


@pytest.mark.data
def test_real_cwru_folder(real_data):
    with pytest.raises(ValueError, match=r"BA DE FE \(52\), DE \(8\), DE FE \(1\); .*--channels DE"):
        load_dataset(real_data / "cwru_12k_de")
    recordings = load_dataset(real_data / "cwru_12k_de", channels=["DE"])
    assert len(recordings) == 61
    by_name = {recording.source.rsplit("/", 1)[1]: recording for recording in recordings}
    # Manifest and file state different speeds: the manifest overrides, the file's is kept as metadata.
    for name, rpm, stored in (("97.mat", 1797, 1796), ("158.mat", 1797, 1773), ("3001.mat", 1797, None)):
        assert (by_name[name].rpm, by_name[name].metadata["rpm_in_file"]) == (rpm, stored)
    assert by_name["97.mat"].sampling_rate_hz == 48_000
    assert (by_name["108.mat"].load, by_name["108.mat"].load_unit) == (3, "hp")
    assert {recording.specimen for recording in recordings if recording.label == "outer_race"} == {
        "CWRU_DE_OR007", "CWRU_DE_OR014", "CWRU_DE_OR021",
    }  # fmt: skip
    faults = load_dataset(real_data / "cwru_12k_de", channels=["DE"], classes=["inner_race", "ball"])
    assert [recording.label for recording in faults].count("ball") == 16
    assert len(faults) == 32


@pytest.mark.data
def test_real_folders_with_common_manifest(real_data):
    entries = list_dataset(real_data)
    assert len(entries) == 103
    recordings = load_dataset(real_data, classes=["imbalance", "bent_shaft"])
    assert {recording.channels for recording in recordings} == {("X", "Y", "Z")}
    assert {recording.sampling_rate_hz for recording in recordings} == {20_000}
    assert sorted({(recording.load, recording.load_unit) for recording in recordings}) == [
        (0, "lb added shaft load"), (11, "lb added shaft load"),
    ]  # fmt: skip
