import re
from xml.etree import ElementTree

import numpy as np
import pytest

from packages.core.evaluation.show import show_recording
from packages.core.signals.recording import Recording
from packages.core.signals.time_frequency import KINDS

RATE_HZ, RPM = 12_000, 1797.0
NOISE = np.random.default_rng(0).normal(size=2 * RATE_HZ)


def recording(**others) -> Recording:
    return Recording(NOISE, RATE_HZ, **({"rpm": RPM, "source": "bench/cost_$5_$6.mat"} | others))


def texts(path) -> dict[str, float]:
    """Every text of a picture, and how far down it stands."""
    found = {}
    for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text"):
        place = re.search(r"translate\(\S+ (\S+)\)", element.get("transform", "")) or [None, element.get("y", "nan")]
        found["".join(element.itertext())] = float(place[1])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_says_what_it_shows(tmp_path, kind):
    words = texts(show_recording(recording(label="healthy"), kind, tmp_path / "map.svg", bearing="6205"))
    for expected in ("time / s", "dB below the strongest", "cost_$5_$6.mat"):
        assert expected in words
    assert any(("Hz" in word) if kind != "order" else ("multiples of shaft speed" in word) for word in words)
    (subtitle,) = (word for word in words if "1797 rpm" in word)
    assert "12000 Hz" in subtitle
    assert "bearing 6205" in subtitle
    assert "healthy" in subtitle
    assert "BPFO" in words


@pytest.mark.parametrize(("kind", "unit"), [("order", 1.0), ("envelope", RPM / 60)])
def test_fault_orders_stand_where_they_belong(tmp_path, kind, unit):
    words = texts(show_recording(recording(), kind, tmp_path / "map.svg", bearing="6205"))
    low, high = ("2", "14") if kind == "order" else ("100", "400")
    per_pixel = (float(high) - float(low)) / (words[high] - words[low])
    for name, order in {"BPFO": 3.585, "BPFI": 5.415, "2BSF": 4.714, "2xBPFI": 10.83}.items():
        above_1x = (words[name] - words["1X"]) * per_pixel
        assert above_1x == pytest.approx((order - 1) * unit, abs=0.02 * unit)


def test_without_a_bearing_it_draws_the_lines_of_the_class_or_of_journal_bearings(tmp_path):
    path = tmp_path / "map.svg"
    assert {"whirl", "1X", "2X"} <= texts(show_recording(recording(), "order", path)).keys()
    assert {"1/2X", "3/2X", "8X"} <= texts(show_recording(recording(label="clearance"), "order", path)).keys()
    unknown = texts(show_recording(recording(rpm=None), "cwt", path))
    assert any("speed not known" in word for word in unknown)
    assert not {"whirl", "1X"} & unknown.keys()


def test_a_tachometer_makes_lines_follow_the_speed(tmp_path):
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    turns = 20 * time_s + 5 * time_s**2
    both = Recording(np.stack((turns % 1 < 0.1, NOISE)).astype(float), RATE_HZ, channels=("tacho", "vertical"))
    words = texts(show_recording(both, "order", tmp_path / "map.svg", tachometer="tacho"))
    assert "recording, channel vertical" in words
    (speed,) = (re.search(r"([\d.]+) to ([\d.]+) rpm", word) for word in words if "rpm" in word)
    assert float(speed[1]) == pytest.approx(1200, rel=0.05)
    assert float(speed[2]) == pytest.approx(2400, rel=0.05)


def test_it_reads_files_and_names_the_picture_after_them(tmp_path, monkeypatch):
    from scipy.io import wavfile

    monkeypatch.chdir(tmp_path)
    wavfile.write("pump 3.wav", RATE_HZ, NOISE.astype(np.float32))
    assert show_recording("pump 3.wav", rpm=1500, start_s=0.5, duration_s=0.1).name == "pump 3-cwt.png"
    assert (tmp_path / "pump 3-cwt.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pump 3-cwt.png", "pump 3.wav"]


def test_a_manifest_near_the_file_tells_what_the_file_does_not(tmp_path):
    folder = tmp_path / "data" / "clearance"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", NOISE)
    with pytest.raises(ValueError, match="does not say its sampling rate"):
        show_recording(folder / "a.npy", "order", tmp_path / "map.svg")
    rows = f"clearance/a.npy,clearance,{RPM},{RATE_HZ},DE\nabsent.npy,,-1,0,\n"
    (tmp_path / "data" / "manifest.csv").write_text(f"file,label,rpm,fs,channel_names\n{rows}")
    words = texts(show_recording(folder / "a.npy", "order", tmp_path / "map.svg"))
    assert "a.npy, channel DE" in words
    assert {"1/2X", "3/2X", "8X"} <= words.keys()
    (subtitle,) = (word for word in words if "1797 rpm" in word)
    assert "12000 Hz" in subtitle
    assert "labelled clearance" in subtitle


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"representation": "cvt"}, "did you mean 'cwt'"),
        ({"bearing": "6250"}, "no bearing is named '6250'"),
        ({"out": "map.jpeg2"}, r"map\.jpeg2: cannot draw"),
        ({"start_s": 3.0}, "lasts 2 s: nothing to draw from 3 s"),
        ({"channel": "nowhere"}, "no channel 'nowhere'"),
        ({"rpm": -5.0}, "rpm is -5"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        show_recording(recording(), **({"out": tmp_path / "map.png"} | arguments))
    assert not list(tmp_path.iterdir())


def test_an_order_map_without_speed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs the shaft's speed; give rpm or a tachometer"):
        show_recording(recording(rpm=None), "order", tmp_path / "map.png")


@pytest.mark.data
def test_an_inner_race_fault_stands_on_its_line(real_data, tmp_path):
    words = texts(
        show_recording(real_data / "cwru_12k_de" / "105.mat", "order", tmp_path / "a.svg", bearing="6205", rpm=RPM)
    )
    assert any("105.mat" in word for word in words)
    assert "BPFI" in words
