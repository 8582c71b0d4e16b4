"""Tests of the figures of time-frequency maps."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from whirl.data.recording import Recording
from whirl.dsp.time_frequency import KINDS
from whirl.evaluation.time_frequency_plot import (
    _make_representation,
    _map,
    _move_apart,
    plot_time_frequency,
    show_recording,
)

RATE_HZ, RPM = 12_000, 1797.0
NOISE = np.random.default_rng(0).normal(size=2 * RATE_HZ)


def recording(**others) -> Recording:
    return Recording(NOISE, RATE_HZ, **({"rpm": RPM, "source": "bench/cost_$5_$6.mat"} | others))


def texts(path) -> dict[str, float]:
    """Return each text of a figure with its vertical position, increasing downwards."""
    found = {}
    for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text"):
        position = re.search(r"translate\(\S+ (\S+)\)", element.get("transform", "")) or [None, element.get("y", "nan")]
        found["".join(element.itertext())] = float(position[1])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_figure_has_title_axes_and_labels(tmp_path, kind):
    words = texts(show_recording(recording(label="healthy"), kind, tmp_path / "map.svg", bearing="6205"))
    for expected in ("time / s", "dB relative to maximum", "cost_$5_$6.mat"):
        assert expected in words
    assert any(("Hz" in word) if kind != "order" else ("multiples of shaft speed" in word) for word in words)
    (subtitle,) = (word for word in words if "1797 rpm" in word)
    assert "12000 Hz" in subtitle
    assert "bearing 6205" in subtitle
    assert "healthy" in subtitle
    assert "BPFO" in words


def lines(path) -> dict[str, float]:
    """Return the vertical position of the end of each drawn line."""
    groups = {g.get("id", ""): g for g in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}g")}
    drawn = {name.removeprefix("line "): g for name, g in groups.items() if name.startswith("line ")}
    return {name: float(g[0].attrib["d"].split()[-1]) for name, g in drawn.items()}


@pytest.mark.parametrize(("kind", "unit"), [("order", 1.0), ("envelope", RPM / 60)])
def test_fault_orders_are_at_their_positions(tmp_path, kind, unit):
    path = show_recording(recording(), kind, tmp_path / "map.svg", bearing="6205")
    words, ends = texts(path), lines(path)
    low, high = ("2", "14") if kind == "order" else ("100", "400")
    per_pixel = (float(high) - float(low)) / (words[high] - words[low])
    orders = {"FTF": 0.398, "BPFO": 3.585, "BPFI": 5.415, "2BSF": 4.714, "3xBPFO": 10.755, "2xBPFI": 10.83}
    for name, order in orders.items():
        assert (ends[name] - ends["1X"]) * per_pixel == pytest.approx((order - 1) * unit, abs=0.01 * unit)


@pytest.mark.parametrize("kind", KINDS)
def test_lines_have_labels_that_do_not_overlap(tmp_path, kind):
    path = show_recording(recording(), kind, tmp_path / "map.svg", bearing="6205")
    words, ends = texts(path), lines(path)
    assert (
        {"FTF", "1X", "2X", "3X", "BPFO", "2BSF", "BPFI", "2xBPFO", "2xBPFI", "3xBPFO"} <= ends.keys() <= words.keys()
    )
    by_order = sorted((words[name] for name in ends), reverse=True)
    assert [words[name] for name in sorted(ends, key=ends.__getitem__, reverse=True)] == by_order
    assert np.diff(by_order).max() < -8  # points


def test_move_apart_minimizes_displacement():
    moved = _move_apart([0.0, 0.5, 0.51, 0.9, 1.0], 0.1)
    assert moved == pytest.approx([0.0, 0.455, 0.555, 0.9, 1.0])
    assert _move_apart([0.99, 1.0], 0.1) == pytest.approx([0.9, 1.0])
    assert _move_apart([], 0.1) == []


def test_wigner_ville_map_has_no_holes():
    """Negative cells have no level in dB; without smoothing, noise has a quarter of them."""
    mapping = _make_representation("wvd", RATE_HZ, 3200, None, None, None)
    assert (_map(mapping, NOISE[:3200], None) < -60).mean() < 0.005


def test_class_with_low_orders_only_shows_sixteen_orders(tmp_path):
    for kind in ("stft", "wvd"):
        words = texts(show_recording(recording(label="oil_whirl"), kind, tmp_path / "map.svg"))
        assert {"whirl", "1X", "400"} <= words.keys()  # Hz: 16 orders of 30 Hz are 479 Hz
        assert "5000" not in words
        assert "5000" in texts(show_recording(recording(label="cavitation"), kind, tmp_path / "map.svg"))


def test_draws_lines_of_class_or_journal_bearing_without_bearing(tmp_path):
    path = tmp_path / "map.svg"
    assert {"whirl", "1X", "2X"} <= texts(show_recording(recording(), "order", path)).keys()
    assert {"1/2X", "3/2X", "8X"} <= texts(show_recording(recording(label="clearance"), "order", path)).keys()
    assert {"whirl", "1/2X"}.isdisjoint(texts(show_recording(recording(label="inner_race"), "order", path)))
    unknown = texts(show_recording(recording(rpm=None), "cwt", path))
    assert any("speed unknown" in word for word in unknown)
    assert not {"whirl", "1X"} & unknown.keys()


def test_lines_follow_tachometer_speed(tmp_path):
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    turns = 20 * time_s + 5 * time_s**2
    both = Recording(np.stack((turns % 1 < 0.1, NOISE)).astype(float), RATE_HZ, channels=("tacho", "vertical"))
    words = texts(show_recording(both, "order", tmp_path / "map.svg", tachometer="tacho"))
    assert "recording, channel vertical" in words
    (speed,) = (re.search(r"([\d.]+) to ([\d.]+) rpm", word) for word in words if "rpm" in word)
    assert float(speed[1]) == pytest.approx(1200, rel=0.05)
    assert float(speed[2]) == pytest.approx(2400, rel=0.05)


@pytest.mark.parametrize(
    ("tachometer", "message"),
    [
        (np.zeros(len(NOISE)), "channel tacho: the tachometer has 0 pulses"),
        (np.convolve(NOISE, np.ones(20), "same"), "channel tacho: not a tachometer .* irregular"),
    ],
    ids=["silent", "vibration"],
)
def test_rejects_channel_that_is_not_a_tachometer(tmp_path, tachometer, message):
    both = Recording(np.stack((tachometer, NOISE)), RATE_HZ, channels=("tacho", "vertical"))
    with pytest.raises(ValueError, match=message):
        show_recording(both, "order", tmp_path / "map.png", tachometer="tacho")
    with pytest.raises(ValueError, match="no channel other than the tachometer"):
        show_recording(both.select_channels(["tacho"]), "cwt", tmp_path / "map.png", tachometer="tacho")


def test_order_map_of_envelope_is_labeled(tmp_path):
    path = tmp_path / "map.svg"
    assert any(
        "order map of the squared envelope, " in word
        for word in texts(show_recording(recording(), "order", path, bearing="6205"))
    )
    assert not any("envelope" in word for word in texts(show_recording(recording(), "order", path)))


def test_reads_files_and_derives_image_name(tmp_path, monkeypatch):
    from scipy.io import wavfile

    monkeypatch.chdir(tmp_path)
    wavfile.write("pump 3.wav", RATE_HZ, NOISE.astype(np.float32))
    assert show_recording("pump 3.wav", rpm=1500, start_s=0.5, duration_s=0.1).name == "pump 3-cwt.png"
    assert (tmp_path / "pump 3-cwt.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pump 3-cwt.png", "pump 3.wav"]


def test_uses_metadata_of_nearby_manifest(tmp_path):
    folder = tmp_path / "data" / "clearance"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", NOISE)
    with pytest.raises(ValueError, match="does not state its sampling rate"):
        show_recording(folder / "a.npy", "order", tmp_path / "map.svg")
    rows = f"clearance/a.npy,clearance,{RPM},{RATE_HZ},DE\nabsent.npy,,-1,0,\n"
    (tmp_path / "data" / "manifest.csv").write_text(f"file,label,rpm,fs,channel_names\n{rows}")
    words = texts(show_recording(folder / "a.npy", "order", tmp_path / "map.svg"))
    assert "a.npy, channel DE" in words
    assert {"1/2X", "3/2X", "8X"} <= words.keys()
    (subtitle,) = (word for word in words if "1797 rpm" in word)
    assert "12000 Hz" in subtitle
    assert "label clearance" in subtitle


@pytest.mark.parametrize(
    ("given", "own"), [("SKF 6205-2RS", None), ("9, 7.94, 39.04", "Acme 17"), (None, "6205; 6203"), ("6205", "6203")]
)
def test_draws_the_bearing_that_is_given_or_that_of_the_recording(tmp_path, given, own):
    found = lines(show_recording(recording(bearing=own), "order", tmp_path / "map.svg", bearing=given))
    expected = lines(show_recording(recording(), "order", tmp_path / "6205.svg", bearing="6205"))
    assert found["BPFO"] == pytest.approx(expected["BPFO"], abs=0.1)


def test_draws_no_lines_of_an_unknown_bearing_of_the_recording(tmp_path):
    assert "BPFO" not in texts(show_recording(recording(bearing="Acme 17"), "order", tmp_path / "map.svg"))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_refuses_to_draw_what_is_constant_or_not_finite(tmp_path, value):
    signal = np.where(np.arange(len(NOISE)) < RATE_HZ, NOISE, value)
    half = Recording(signal, RATE_HZ, rpm=RPM, source="a.npz")
    show_recording(half, "cwt", tmp_path / "map.png")
    with pytest.raises(ValueError, match="channel ch0 is constant, NaN or infinite there; draw another part"):
        show_recording(half, "cwt", tmp_path / "map.png", start_s=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"representation": "cvt"}, "did you mean 'cwt'"),
        ({"bearing": "6250"}, "unknown bearing '6250'"),
        ({"out": "map.jpeg2"}, r"map\.jpeg2: unsupported image format"),
        ({"start_s": 3.0}, "is 2 s long, too short to draw from 3 s"),
        ({"channel": "nowhere"}, "no channel 'nowhere'"),
        ({"rpm": -5.0}, "rpm is -5"),
    ],
)
def test_rejects_invalid_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        show_recording(recording(), **({"out": tmp_path / "map.png"} | arguments))
    assert not list(tmp_path.iterdir())


def test_order_map_requires_speed(tmp_path):
    with pytest.raises(ValueError, match="requires the shaft speed; give rpm or a tachometer"):
        show_recording(recording(rpm=None), "order", tmp_path / "map.png")


@pytest.mark.data
def test_draws_real_recording(real_data, tmp_path):
    words = texts(
        show_recording(real_data / "cwru_12k_de" / "105.mat", "order", tmp_path / "a.svg", bearing="6205", rpm=RPM)
    )
    assert any("105.mat" in word for word in words)
    assert "BPFI" in words


@pytest.mark.parametrize("kind", KINDS)
def test_draws_on_given_axes(tmp_path, kind):
    figure = Figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplots(1, 2)[1]
    assert plot_time_frequency(recording(), kind, bearing="6205", ax=axes) is figure
    assert axes.get_xlabel() == "time / s"
    (bar,) = axes.child_axes
    assert bar.get_ylabel() == "dB relative to maximum"
    figure.savefig(tmp_path / "figure.png")
    names = [text for text in axes.texts if text.get_text() in ("BPFO", "2xBPFO", "1X")]
    assert all(text.get_window_extent().x1 < bar.get_window_extent().x0 for text in names)
