"""Quality checks find planted problems and have no findings for clean recordings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whirl.data.inspection import inspect_dataset, inspect_recordings
from whirl.data.quality import count_clipped, longest_run, quantization_step
from whirl.data.recording import Recording

RATE_HZ = 4096.0


def noise(seed, n_samples=4096, n_channels=1):
    return np.random.default_rng(seed).normal(size=(n_channels, n_samples)).astype(np.float32)


def recording(seed, label, specimen, signal=None, **fields):
    """Return a recording without quality problems."""
    fields = {"sampling_rate_hz": RATE_HZ, "rpm": 1500.0, "source": f"{label}_{seed}.wav", "unit": "g"} | fields
    return Recording(noise(seed) if signal is None else signal, label=label, specimen=specimen, **fields)


def clean_set(n_specimens=3, change=lambda index, label, fields: fields):
    """Return two classes of `n_specimens` with two recordings each; `change` returns the fields of one recording."""
    result = []
    for index in range(4 * n_specimens):
        label = "wear" if index % 2 else "healthy"
        result.append(recording(index, label, f"{label}{index // 4}", **change(index, label, {})))
    return result


def findings(recordings, word):
    return [finding for finding in inspect_recordings(recordings).findings if word in finding.message]


def test_clean_recordings_have_no_findings():
    inspection = inspect_recordings(clean_set())
    assert inspection.findings == ()
    assert str(inspection).endswith("no findings")


def test_summarizes_classes():
    recordings = [
        recording(0, "wear", "B1", load=1.0, load_unit="hp"),
        recording(1, "wear", "B1", load=3.0, load_unit="hp", rpm=1800.0, sampling_rate_hz=2048.0),
        recording(2, "healthy", None, rpm=None),
    ]
    healthy, wear = inspect_recordings(iter(recordings)).classes
    assert (healthy.label, healthy.n_recordings, healthy.n_specimens, healthy.rpm, healthy.loads) == (
        "healthy", 1, 0, None, "",
    )  # fmt: skip
    assert (wear.n_recordings, wear.n_specimens, wear.seconds) == (2, 1, 1.0 + 2.0)
    assert (wear.rates_hz, wear.rpm, wear.loads, wear.channels) == (
        (2048.0, 4096.0), (1500.0, 1800.0), "1 to 3 hp", ("ch0",),
    )  # fmt: skip


def test_text_fits_a_terminal_with_aligned_columns():
    text = str(inspect_recordings(clean_set(change=lambda index, label, fields: {"rpm": None})))
    table, rest = text.split("\n\n")
    header, *rows = table.splitlines()
    for name in ("rpm", "load", "channels"):
        assert all(row[header.index(name) - 1] == " " and row[header.index(name)] != " " for row in rows)
    assert max(map(len, rest.splitlines())) <= 110
    assert rest.startswith("warning  unknown shaft speed: ")


# --------------------------------------------------------------------------------------------------- samples


def test_finds_nonfinite_samples():
    signal = noise(1)
    signal[0, [70, 80]] = np.nan, np.inf
    (finding,) = findings([*clean_set(), recording(99, "wear", "B9", signal)], "NaN")
    assert (finding.severity, finding.subjects) == ("error", ("wear_99.wav",))
    assert finding.message.endswith("wear_99.wav ch0 (2, the first at 70)")


def test_finds_constant_channels_and_dropouts():
    constant = np.concatenate([noise(1), np.full((1, 4096), 0.1)])
    stuck = noise(2)
    stuck[0, 1000:2000] = stuck[0, 1000]
    recordings = [recording(50, "wear", "B5", constant), recording(60, "wear", "B6", stuck)]
    assert findings(recordings, "constant channels")[0].message == "constant channels: wear_50.wav ch1"
    assert findings(recordings, "dropouts")[0].message.endswith("wear_60.wav ch0 0.244 s")
    assert findings(recordings, "offset") == findings(recordings, "clipped") == []


def test_counts_clipped_samples():
    signal = np.clip(noise(1), -2.5, 2.5)
    (finding,) = findings([*clean_set(), recording(99, "wear", "B9", signal)], "clipped")
    count = int((np.abs(noise(1)) >= 2.5).sum())
    assert finding.message == f"clipped at full scale: wear_99.wav ch0 at 2.5 g ({count} samples)"


def test_finds_offset():
    (finding,) = findings([*clean_set(), recording(99, "wear", "B9", noise(1) + 5)], "DC offset")
    assert finding.subjects == ("wear_99.wav",)
    assert float(finding.message.split()[-1]) == pytest.approx(5, abs=0.2)


def test_finds_duplicates_with_equal_and_different_labels():
    one, two = recording(1, "wear", "B1"), recording(1, "wear", "B1", source="copy.wav")
    other = recording(1, "healthy", "B2", source="other.wav")
    (finding,) = findings([one, two], "identical signals")
    assert (finding.severity, finding.subjects) == ("warning", ("wear_1.wav", "copy.wav"))
    (finding,) = findings([one, other], "identical signals with different labels")
    assert finding.severity == "error"
    twice = recording(3, "wear", "B1", np.repeat(noise(3), 2, axis=0), channels=("DE", "FE"))
    assert findings([twice], "identical signals")[0].message.endswith("wear_3.wav DE, wear_3.wav FE")


# ------------------------------------------------------------------------------------------------------- metadata


def test_finds_missing_metadata():
    recordings = [*clean_set(), Recording(noise(77), RATE_HZ, source="unknown.wav", unit="g")]
    for what in ("label", "specimen", "shaft speed"):
        (finding,) = findings(recordings, f"unknown {what}")
        assert finding.subjects == ("unknown.wav",)


def test_finds_speeds_that_differ_from_the_file():
    recordings = clean_set()
    recordings.append(recording(90, "wear", "B9", metadata={"rpm_in_file": None}))
    recordings.append(recording(91, "wear", "B9", metadata={"rpm_in_file": 1490.0}))
    recordings.append(recording(92, "wear", "B9", metadata={"rpm_in_file": 1473.0}))
    recordings.append(recording(93, "wear", "B9", metadata={"rpm_in_file": "see notes"}))
    (finding,) = findings(recordings, "the file does not state")
    assert (finding.severity, finding.subjects) == ("info", ("wear_90.wav",))
    (finding,) = findings(recordings, "the file states")
    assert finding.message == "rpm of wear_92.wav is 1500, but the file states 1473"


def test_finds_short_recordings():
    recordings = [recording(1, "wear", "B1", rpm=60 * 15.9), recording(2, "wear", "B1", rpm=60 * 16.1)]
    (finding,) = findings(recordings, "16 revolutions")
    assert finding.subjects == ("wear_1.wav",)


def test_finds_classes_that_cannot_be_split():
    recordings = [*clean_set(), recording(90, "ball", "B9"), recording(91, "ball", "B9")]
    (finding,) = findings(recordings, "only one specimen")
    assert finding.subjects == ("ball",)
    (finding,) = findings([recording(90, "ball", "B9")], "only one class")
    assert finding.severity == "error"


def test_finds_different_units_and_channels():
    recordings = [*clean_set(), recording(9, "wear", "B9", noise(9, n_channels=2), channels=("ch0", "ch1"), unit="V")]
    assert findings(recordings, "different units")[0].message == "different units: g (12), V (1)"
    (finding,) = findings(recordings, "different channels")
    assert finding.message == "different channels: ch0 (12), ch0 ch1 (1)"
    assert finding.remedy.endswith("--channels ch0")


# --------------------------------------------------------------------------------------------------- label leakage


def quantized(seed, step):
    return np.round(noise(seed) / step) * np.float32(step)


def test_finds_sampling_rate_that_leaks_the_label():
    recordings = clean_set(change=lambda i, label, _: {"sampling_rate_hz": 8192.0 if label == "wear" else RATE_HZ})
    (finding,) = findings(recordings, "sampling rate leaks the label")
    assert "4096 Hz only in healthy" in finding.message
    assert "8192 Hz only in wear" in finding.message


def test_finds_quantization_step_that_leaks_the_label():
    recordings = clean_set(change=lambda i, label, _: {"signal": quantized(i, 0.01 if label == "wear" else 0.02)})
    (finding,) = findings(recordings, "quantization step of ch0 leaks the label")
    names = "wear_1.wav, wear_3.wav, wear_5.wav, wear_7.wav, wear_9.wav and 1 more"
    assert f"0.01 g only in wear ({names})" in finding.message


def test_finds_step_that_occurs_in_some_specimens_of_one_class():
    """Some specimens were recorded with another gain, and all of them belong to one class."""
    recordings = clean_set(8, lambda i, label, _: {"signal": quantized(i, 0.005 if i in (1, 3, 5, 7, 9) else 0.02)})
    (finding,) = findings(recordings, "quantization step")
    assert finding.subjects == ("wear_1.wav", "wear_3.wav", "wear_5.wav", "wear_7.wav", "wear_9.wav")
    assert findings(recordings[8:], "quantization step") == [], "a single recording is not a setting"


def test_settings_of_both_classes_do_not_leak():
    recordings = clean_set(change=lambda i, *_: {"signal": quantized(i, (0.01, 0.02)[i // 2 % 2])})
    assert findings(recordings, "leaks") == []


@pytest.mark.parametrize("seed", range(8))
def test_random_steps_do_not_leak(seed):
    steps = np.random.default_rng(seed).uniform(0.001, 0.01, size=80)
    recordings = clean_set(20, lambda i, *_: {"signal": quantized(i, steps[i])})
    assert findings(recordings, "leaks") == []


@pytest.mark.parametrize(("what", "change"), [("level", lambda x: 2 * x), ("offset", lambda x: x + 0.5)])
def test_finds_level_or_offset_that_separates_a_class(what, change):
    alter = lambda i, label, _: {"signal": change(noise(i)) if label == "wear" else noise(i)}  # noqa: E731
    (finding,) = findings(clean_set(8, alter), f"{what} of ch0 alone separates")
    assert finding.subjects == ("healthy",)
    assert "separates healthy from all other classes (below " in finding.message
    assert findings(clean_set(2, alter), f"{what} of ch0 alone separates") == [], (
        "four specimens may be separated by chance"
    )


# --------------------------------------------------------------------------------------------------- measurements


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1e3), st.floats(-3, 3), st.integers(12, 4000), st.integers(0, 10**6))
def test_estimates_quantization_step(step, offset, n_levels, seed):
    codes = np.round(np.random.default_rng(seed).normal(size=20_000) * n_levels / 8)
    samples = ((codes + offset) * step).astype(np.float32)
    assert quantization_step(samples) == pytest.approx(step, rel=1e-3)


def test_continuous_signal_has_no_step():
    for samples in (noise(0)[0], np.sin(np.arange(4096) * 0.1, dtype=np.float32), np.zeros(99, np.float32)):
        assert quantization_step(samples) is None


@pytest.mark.parametrize("kind", ["normal", "laplace", "standard_t"])
@pytest.mark.parametrize("step", [None, 0.05, 0.005])
def test_unclipped_noise_is_rarely_called_clipped(kind, step):
    """240 tests with a false-positive rate of 1e-3: more than two false positives are improbable."""
    n_false_positives = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        samples = rng.standard_t(5, size=20_000) if kind == "standard_t" else getattr(rng, kind)(size=20_000)
        samples = np.float32(samples if step is None else np.round(samples / step) * step)
        n_false_positives += count_clipped(samples, step) > 0
    assert n_false_positives <= 2


@pytest.mark.parametrize("step", [None, 0.001])
@pytest.mark.parametrize(("low", "high"), [(-2.2, 2.2), (-9, 2.2), (-2.2, 9), (-2.2, 2.199)])
def test_counts_clipped_samples_on_one_or_both_sides(step, low, high):
    samples = np.random.default_rng(3).normal(size=20_000)
    samples = np.float32(samples if step is None else np.round(samples / step) * step)
    expected = int((samples <= np.float32(low)).sum() + (samples >= np.float32(high)).sum())
    found = count_clipped(np.clip(samples, np.float32(low), np.float32(high)), step)
    one_side = max((samples <= np.float32(low)).sum(), (samples >= np.float32(high)).sum())
    assert found == (one_side if (step, high) == (None, 2.199) else expected)


def test_quantized_sine_is_not_clipped():
    step = 2.0**-11
    samples = np.round(np.sin(2 * np.pi * 29.95 * np.arange(20_000) / 12_000) / step) * step
    assert count_clipped(np.float32(samples), step) == 0


def test_longest_run():
    assert longest_run(np.array([5.0])) == 1
    assert longest_run(np.array([1, 1, 2, 3, 3, 3, 3])) == 4


# --------------------------------------------------------------------------------------------------- folders


def test_corrupt_files_are_findings(tmp_path):
    for index, label in enumerate(("wear", "wear", "healthy", "healthy")):
        (tmp_path / label / f"B{index}").mkdir(parents=True)
        np.savez(tmp_path / label / f"B{index}" / "r.npz", signal=noise(index), fs=RATE_HZ, rpm=1500)
    corrupt = tmp_path / "wear" / "B1" / "corrupt.npz"
    corrupt.write_bytes(b"x")
    inspection = inspect_dataset(tmp_path)
    (finding,) = inspection.findings
    assert (finding.severity, finding.subjects) == ("error", ("corrupt.npz",))
    assert str(corrupt) in finding.message
    assert [row.n_recordings for row in inspection.classes] == [2, 2]
    missing = inspect_dataset(tmp_path, channels=["DE"], classes=["healthy"]).findings
    assert all("no channel 'DE'" in finding.message for finding in missing)


@pytest.mark.data
def test_finds_problems_of_the_real_cwru_folder(real_data):
    inspection = inspect_dataset(real_data / "cwru_12k_de")
    by_kind = {finding.message.split(":")[0]: finding for finding in inspection.findings}
    assert "200.mat DE at 0.665 g (8 samples)" in by_kind["clipped at full scale"].message
    assert "236.mat DE at 6.65 g (4 samples), 237.mat DE at 6.65 g (3 samples)" in (
        by_kind["clipped at full scale"].message
    )
    assert set(by_kind["clipped at full scale"].subjects) == {"200.mat", "236.mat", "237.mat"}
    assert by_kind["sampling rate leaks the label"].message.endswith("48000 Hz only in normal (97.mat)")
    steps = by_kind["quantization step of DE leaks the label"]
    assert set(steps.subjects) == {"97.mat", *(f"{n}.mat" for n in (197, 198, 199, 200, 3005, 3006, 3007, 3008))}
    assert by_kind["only one specimen, cannot be split by specimen"].subjects == ("normal",)
    assert by_kind["nominal shaft speed that the file does not state"].subjects == tuple(
        f"{n}.mat" for n in range(3001, 3009)
    )
    assert by_kind["rpm of 158.mat is 1797, but the file states 1773"].severity == "warning"
    assert by_kind["different channels"].remedy.endswith("--channels DE")
    assert {"identical signals", "NaN or infinite samples", "constant channels"}.isdisjoint(by_kind)


@pytest.mark.data
def test_finds_offset_of_the_real_rotor_set(real_data):
    inspection = inspect_dataset(real_data / "adi_spectraquest_rotor")
    (offset,) = [finding for finding in inspection.findings if finding.message.startswith("DC offset")]
    assert len(offset.subjects) == 42
    (single,) = [finding for finding in inspection.findings if finding.message.startswith("only one specimen")]
    assert set(single.subjects) == {"bent_shaft", "misalignment", "normal"}, "imbalance has four levels"
