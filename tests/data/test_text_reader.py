"""Reader of text files: layouts, encodings, and error messages for files without a signal."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whirl.data.reading import read

GERMAN = "\ufeffZeit [s],Gehäuse\n" + "".join(f"{i / 8},{i % 3}\n" for i in range(9))
TEXTS = {
    # name: (text, signal, sampling rate, channels)
    "commas and names": ("time,DE\n0,1\n0.5,2\n1,-3\n", [[1, 2, -3]], 2, ("DE",)),
    "decimal commas": ("t [s];a\n0,0;1,5\n0,5;2,5\n1,0;3,5\n", [[1.5, 2.5, 3.5]], 2, ("a",)),
    "tabs, CRLF, units": (
        "Time\tA\tB\r\n(ms)\t(V)\t(V)\r\n0\t1\t4\r\n2\t2\t6\r\n4\t5\t5\r\n",
        [[1, 2, 5], [4, 6, 5]],
        500,
        ("A", "B"),
    ),
    "spaces and comment": ("# time (s) a\n 0.0  1\n 0.1 -2\n 0.2  3e-1\n", [[1, -2, 0.3]], 10, ("a",)),
    "notes": ("Rate: 25.6 kHz\nOperator; Ann\n\na;b\n1;2\n3;4\n5;7\n", [[1, 3, 5], [2, 4, 7]], 25600, ("a", "b")),
    "rate in a comment": ("# fs = 100\n1.5\n2.5\n0.5\n", [[1.5, 2.5, 0.5]], 100, ("ch0",)),
    "one column of decimal commas": ("# fs = 100\n1,5\n2,05\n0,5\n", [[1.5, 2.05, 0.5]], 100, ("ch0",)),
    "two of integers": ("# fs = 100\n1,5\n2,6\n0,5\n", [[1, 2, 0], [5, 6, 5]], 100, ("ch0", "ch1")),
    "sample index": ("n,dt,a\n1,0.1,5\n2,0.1,7\n3,0.1,6\n", [[5, 7, 6]], 10, ("a",)),
    "byte order mark": (GERMAN, [[i % 3 for i in range(9)]], 8, ("Gehäuse",)),
    "repeated name": ("a,a\n1,2\n3,4\n5,0\n", [[1, 3, 5], [2, 4, 0]], 7, ("a1", "a2")),
    "bias in the first row": ("1;2;9;9\r\n3;4;\r\n5;6;\r\n", [[1, 3, 5], [2, 4, 6]], 7, ("ch0", "ch1")),
    "speed channel": ("a,rpm\n1,1490\n2,1500\n0,1510\n", [[1, 2, 0]], 7, ("a",)),
    "title": ("Pump 3, hall 4\nat full load\n1,2\n3,4\n5,0\n", [[1, 3, 5], [2, 4, 0]], 7, ("ch0", "ch1")),
    "row of numbers among the notes": ("8;2\na;b\n1;2\n3;4\n5;0\n", [[1, 3, 5], [2, 4, 0]], 7, ("a", "b")),
    "missing value at the end": ("a;b\n1;\n3;4\n5;0\n", [[1, 3, 5], [np.nan, 4, 0]], 7, ("a", "b")),
    "missing value is NaN": ("a,b\n1,2\n,4\n3,5\n", [[1, np.nan, 3], [2, 4, 5]], 7, ("a", "b")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_layouts(name, tmp_path):
    text, signal, rate, channels = TEXTS[name]
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    recording = read(path, sampling_rate_hz=rate)  # confirms a rate below 100 Hz
    np.testing.assert_allclose(recording.signal, signal, rtol=1e-6)
    assert recording.sampling_rate_hz == pytest.approx(rate)
    assert recording.channels == channels
    if name == "speed channel":
        assert recording.rpm == 1500


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_text_encodings(encoding, tmp_path):
    (tmp_path / "a.csv").write_bytes("Gehäuse;b\n1;2\n3;5\n4;4\n".encode(encoding))
    recording = read(tmp_path / "a.csv", sampling_rate_hz=1)
    assert recording.channels == ("Gehäuse", "b")
    np.testing.assert_array_equal(recording.signal, [[1, 3, 4], [2, 5, 4]])


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    n_channels=st.integers(1, 3),
    separator=st.sampled_from([";", "\t", ",", " "]),
    decimal=st.sampled_from([".", ","]),
    named=st.booleans(),
    timed=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    trailing=st.booleans(),
)
def test_all_text_layouts_give_the_same_numbers(
    tmp_path_factory, data, n_channels, separator, decimal, named, timed, newline, trailing
):
    # These layouts are ambiguous.
    assume(decimal == "." or (separator != "," and n_channels + timed > 1))
    values = st.floats(-1e3, 1e3, width=32).map(lambda value: round(value, 4))
    rows = data.draw(st.lists(st.lists(values, min_size=n_channels, max_size=n_channels), min_size=10, max_size=20))
    table = [[index / 640, *row] if timed else row for index, row in enumerate(rows)]
    assume(
        timed or np.any(np.diff(np.array(rows)[:, 0]) <= 0)
    )  # the first column looks neither like an index nor like times
    assume(not named or np.ptp(np.array(rows), axis=0).all())  # a constant column with a name is left out
    lines = [separator.join(f"{value:.8f}".replace(".", decimal) for value in row) for row in table]
    header = ["time"] * timed + [f"c{index}" for index in range(n_channels)]
    text = newline.join([separator.join(header)] * named + lines) + newline * trailing
    path = tmp_path_factory.mktemp("text") / "a.csv"
    path.write_bytes(text.encode())
    recording = read(path, sampling_rate_hz=9)
    np.testing.assert_allclose(recording.signal, np.array(rows, dtype=np.float32).T, rtol=1e-6, atol=1e-7)
    assert recording.sampling_rate_hz == (640 if timed else 9)
    assert recording.channels == (tuple(header[timed:]) if named else tuple(f"ch{i}" for i in range(n_channels)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows of numbers"),
        ("a,b\nx,y\n", "no rows of numbers"),
        ("a,b\n" + "1,2\n" * 9000 + "3,oops\n" + "1,2\n" * 9, "line 9002 contains 'oops', expected only numbers"),
        ("a,b\n1,2\n\n3,4\n5,oops\n", "line 5 contains 'oops', expected only numbers"),
        (
            "t,X,Y,Z\n" + "0,000050,0,906084,0,9155,0,8660\n" * 9,
            "column names in the header: 4, fields per row: 8; .*decimal commas",
        ),
        ("t,X\n" + "0,05,0,906\n" * 9, "column names in the header: 2, fields per row: 4; .*decimal commas"),
        ("Acc [g]\n" + "0,95\n" * 9, "column names in the header: 1, fields per row: 2; .*decimal commas"),
        ("t;X\n" + "0;1;2\n" * 9, "column names in the header: 2, fields per row: 3"),
        (
            "t;X;Y\n" + "1;2;3\n" * 4 + "Überlauf;;;\n" + "1;2;3\n" * 9,
            "line 6 is 'Überlauf;;;', expected a row of numbers",
        ),
        (
            "t;X;Y\n" + "1;2;3\n" * 9 + "Überlauf;;\n" + "1;2;3\n" * 4,
            "line 11 contains 'Überlauf', expected only numbers",
        ),
        ("t;X;Y\n" + "1;2;3\n" * 9000 + "Überlauf;;\n1;2;3\n", "line 9002 contains 'Überlauf', expected only numbers"),
        ("a;b\n" + "1;2\n" * 4 + "a;b\n" + "1;2\n" * 9, "line 6 is 'a;b', expected a row of numbers"),
        ("1\n2\nÜberlauf\n" + "3\n" * 9, "line 3 is 'Überlauf', expected a row of numbers"),
        ("a,b\n" + "1,2\n" * 9000 + "1,2,3\n" + "1,2\n" * 9, "line 9002, '1,2,3', has 3 fields, expected 2"),
        ("a,b\n1,2,3\n" + "1,2\n" * 9, "line 2, '1,2,3', has 3 fields, expected 2"),
        ("a,b\n1,2\n3\n" + "1,2\n" * 9, "line 3, '3', has 1 fields, expected 2"),
        ("a b\n1 2\n3 4 5\n" + "1 2\n" * 9, "line 3, '3 4 5', has 3 fields, expected 2"),
        ("a,b\n" + "1,2\n" * 9000 + "1,2,3\n1\n" + "1,2\n" * 9, "line 9002, '1,2,3', has 3 fields, expected 2"),
        ("a,b\n" + "1,2\n" * 9000 + "1\n1,2,3\n" + "1,2\n" * 9, "line 9002, '1', has 1 fields, expected 2"),
        ("a,b\n1,2\n3,4\n5", "ends in the middle of line 4"),
        ("time,a\n0,1\n1.5,2\n1,3\n9,4\n", "the times in 'time' are not evenly spaced"),
        ("a\x00b", "binary data"),
        ("7\n", "no numeric signal"),
    ],
)
def test_rejects_text_without_signal(text, message, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=f"a.csv: .*{message}.*; "):
        read(tmp_path / "a.csv", sampling_rate_hz=1)


@pytest.mark.data
def test_original_rotor_csv_equals_its_conversion(real_data):
    folder = real_data / "adi_spectraquest_rotor"
    head = read(folder / "original_csv_head.txt")
    assert (head.sampling_rate_hz, head.signal.shape) == (20_000, (3, 12))
    starts = [read(path).signal[:, :12] for path in sorted(folder.glob("*.npz"))]
    assert sum(np.array_equal(head.signal, start) for start in starts) == 1
