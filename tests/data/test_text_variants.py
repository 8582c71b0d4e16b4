"""Text files as recorders, oscilloscopes and spreadsheets write them."""

import numpy as np
import pytest

from whirl.data.reading import read

VALUES = np.round(np.random.default_rng(0).normal(size=40), 4)
LINES = [f"{value:.4f}" for value in VALUES]


def stamped(form, step_us=500):
    times = np.datetime64("2024-05-13T10:00:59.990000") + np.arange(40) * np.timedelta64(step_us, "us")
    return [f"{form(str(time))};{line}" for time, line in zip(times, LINES, strict=True)]


TEXTS = {
    # name: (lines, sampling rate, channel)
    "ISO time stamps": (["t;a", *stamped(lambda t: t)], 2000, "a"),
    "ISO with Z": (["time;a", *stamped(lambda t: t + "Z")], 2000, "a"),
    "ISO with space": (["a stamp;a", *stamped(lambda t: t.replace("T", " "))], 2000, "a"),
    "German date": (["Zeit;a", *stamped(lambda t: f"13.05.2024 {t[11:]}")], 2000, "a"),
    "American date": (["Time;a", *stamped(lambda t: f"05/13/2024 {t[11:]}")], 2000, "a"),
    "time of day": (["Time;a", *stamped(lambda t: t[11:])], 2000, "a"),
    "decimal comma": (["Time;a", *(line.replace(".", ",") for line in stamped(lambda t: t))], 2000, "a"),
    "date and time in two columns": (
        ["date;time;a", *(f"2024-05-01;10:00:00.{i:03d};{line}" for i, line in enumerate(LINES))], 1000, "a",
    ),
    "quoted": (["Time;a", *stamped(lambda t: f'"{t}"')], 2000, "a"),
    "without names": (stamped(lambda t: t), 2000, "ch0"),
    "past midnight": (
        ["Time;a", *(f"{'00:00:00' if i > 19 else '23:59:59'}.{(980 + i) % 1000:03d};{x}"
                     for i, x in enumerate(LINES))],
        1000, "a",
    ),
    "epoch in ms": (["epoch;a", *(f"{1715594459990 + i};{line}" for i, line in enumerate(LINES))], 1000, "a"),
    "epoch in s": (["ts,a", *(f"{1715594459.99 + i / 500:.6f},{line}" for i, line in enumerate(LINES))], 500, "a"),
    "loose signs": (
        ["# fs=2000 Hz", "a;b", *(f"{'-' if v < 0 else '+'} {abs(v):.4f};1.{i:02d}" for i, v in enumerate(VALUES))],
        2000, "a",
    ),
    "semicolon comments": (["; Samplerate: 25,600 Hz", "; Channel: DE", *LINES], 25_600, "ch0"),
    "exclamation comments": (["! Sampling frequency = 51.2 kHz", *LINES], 51_200, "ch0"),
    "oscilloscope": (
        [f"{key},{line_time},{line}" for key, line_time, line in zip(
            ["Record Length,40,", "Sample Interval,4e-05,", "Vertical Units,V,", *[",,"] * 37],
            (f"{i * 4e-5:.8f}" for i in range(40)), LINES, strict=True)],
        25_000, "ch0",
    ),
    "oscilloscope with a unit": (
        [f"{key},{line}" for key, line in zip(
            ["Sample Interval,40,us", "Model,X1,", *[",,"] * 38], LINES, strict=True)],
        25_000, "ch0",
    ),
    "units of both columns": (
        ["Time,Acc", "ms,m/s^2", *(f"{i * 0.5},{line}" for i, line in enumerate(LINES))], 2000, "Acc",
    ),
    "thousands": (["Sampling rate: 12,800 Hz", "a", *LINES], 12_800, "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_reads_text_as_recorders_write_it(name, tmp_path):
    lines, rate, channel = TEXTS[name]
    (tmp_path / "a.csv").write_text("\n".join([*lines, ""]))
    recording = read(tmp_path / "a.csv")
    np.testing.assert_allclose(recording.signal[0], VALUES, rtol=1e-6)
    assert recording.sampling_rate_hz == pytest.approx(rate, rel=1e-6)
    assert recording.channels[0] == channel


@pytest.mark.parametrize("name", ["2003.10.22.12.06.24", "snapshot", "run.001"])
def test_reads_snapshots_without_suffix(name, tmp_path):
    (tmp_path / name).write_text("\n".join(f"{line}\t{line}" for line in LINES) + "\n")
    assert read(tmp_path / name, sampling_rate_hz=20_000).signal.shape == (2, 40)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Time;a", *(stamped(lambda t: t)[:20]), *(stamped(lambda t: t)[23:])], "not evenly spaced"),
        (["Time;a", *stamped(lambda t: t[:19])], "not evenly spaced"),
        (["Rate: 25 widgets", *LINES], "unknown unit 'widgets'"),
        (["Rate: 25 Hz", *LINES], "states a sampling rate of 25 Hz, expected at least 100 Hz"),
        (["time [fortnight];a", *(f"{i};{line}" for i, line in enumerate(LINES))], "unknown unit 'fortnight'"),
    ],
)
def test_rejects_ambiguous_text(lines, message, tmp_path):
    (tmp_path / "a.csv").write_text("\n".join([*lines, ""]))
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.csv")
