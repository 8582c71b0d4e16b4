"""Reader of CWRU records: variables, sampling rates, and errata."""

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from whirl.data.readers import cwru
from whirl.data.reading import read


def write_cwru(path, *numbers, rpm=1772, channels=("DE", "FE")):
    variables = {}
    for number in numbers:
        variables |= {f"X{number}_{name}_time": np.full((50, 1), float(number)) for name in channels}
        variables |= {} if rpm is None else {f"X{number}RPM": np.array([[rpm]], dtype=np.uint16)}
    savemat(path, variables)


@pytest.mark.parametrize(
    ("file", "numbers", "expected", "rate"),
    [
        ("105", ["105"], 105, 12_000),
        ("174", ["173"], 173, 48_000),  # the variables in 174.mat are named X173
        ("99", ["098", "099"], 99, 48_000),  # 99.mat also contains record 98
        ("normal_0", ["097"], 97, 48_000),  # renamed file
        ("IR014_48k", ["173"], 173, 48_000),
    ],
)
def test_cwru_variables_and_rates(file, numbers, expected, rate, tmp_path):
    path = tmp_path / f"{file}.mat"
    write_cwru(path, *numbers)
    recording = read(path)
    assert (recording.channels, recording.unit, recording.rpm) == (("DE", "FE"), "g", 1772)
    assert recording.sampling_rate_hz == rate
    np.testing.assert_array_equal(recording.signal, np.full((2, 50), expected))


def test_cwru_rejects_two_records_in_renamed_file(tmp_path):
    write_cwru(tmp_path / "normal.mat", "098", "099")
    with pytest.raises(ValueError, match=r"normal\.mat: contains the records \['098', '099'\]"):
        read(tmp_path / "normal.mat")


def test_cwru_48_khz_table_has_as_many_records_as_the_website():
    # 4 normal; 12k + 48k drive-end tables: 4 loads x (3 inner + 3 ball + 3 + 1 + 3 outer positions), and 173 = 174.
    assert len(cwru._RECORDS_AT_48_KHZ) == 4 + 4 * (3 + 3 + 7) + 1


@pytest.mark.data
def test_cwru_errata_in_real_files(real_data):
    folder = real_data / "cwru_12k_de"
    normal, wrong_rpm = read(folder / "97.mat"), read(folder / "158.mat")
    assert (normal.sampling_rate_hz, normal.channels, normal.rpm) == (48_000, ("DE", "FE"), 1796)
    assert (wrong_rpm.rpm, wrong_rpm.metadata["rpm_in_file"]) == (1797, 1773)
    for record, nominal in enumerate((1797, 1772, 1750, 1730, 1797, 1772, 1750, 1730), start=3001):
        recording = read(folder / f"{record}.mat")
        assert (recording.channels, recording.rpm) == (("DE",), nominal)
        assert recording.metadata == {"rpm_in_file": None}
        assert recording.sampling_rate_hz == 12_000


@pytest.mark.data
def test_real_cwru_files_match_their_manifest(real_data):
    folder = real_data / "cwru_12k_de"
    for row in pd.read_csv(folder / "manifest.csv").itertuples():
        recording = read(folder / str(row.file))
        assert recording.sampling_rate_hz == row.sampling_rate
        assert " ".join(recording.channels) == row.channel_names
        assert recording.n_samples == row.n_samples
        stored = recording.metadata.get("rpm_in_file", recording.rpm)
        assert stored == (None if pd.isna(row.rpm_in_file) else row.rpm_in_file)


@pytest.mark.data
def test_cwru_97_has_shaft_line_expected_at_48_khz(real_data):
    recording = read(real_data / "cwru_12k_de" / "97.mat")
    spectrum = np.abs(np.fft.rfft(recording.signal[0] * np.hanning(recording.n_samples)))
    frequencies = np.fft.rfftfreq(recording.n_samples, 1 / recording.sampling_rate_hz)
    low = (frequencies > 10) & (frequencies < 45)
    peak_hz = frequencies[low][spectrum[low].argmax()]
    assert peak_hz == pytest.approx(1796 / 60, rel=0.01)
