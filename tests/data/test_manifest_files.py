"""Manifests as spreadsheets and other systems write them."""

import unicodedata

import numpy as np
import pytest

from whirl.data.dataset import load_dataset

TEXT = "file;label;rpm\r\nLäufer.npz;Unwucht;1.500,5\r\n"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "data",
    [
        TEXT.replace("1.500,5", "1500,5").encode("utf-16"),
        ("\ufeffsep=;\r\n" + TEXT.replace("1.500,5", "1500,5")).encode(),
        TEXT.replace("1.500,5", "1500,5").encode("cp1252"),
        TEXT.replace("1.500,5", "1500.5").replace(";", "\t").encode("utf-8-sig"),
    ],
    ids=["utf-16", "sep", "cp1252", "tabs"],
)
def test_reads_manifests_of_spreadsheets(data, form, tmp_path):
    name = unicodedata.normalize(form, "Läufer.npz")
    np.savez(tmp_path / name, signal=np.arange(64.0), fs=12_000)
    (tmp_path / "manifest.csv").write_bytes(data)
    (recording,) = load_dataset(tmp_path)
    assert (recording.label, recording.rpm) == ("Unwucht", 1500.5)


def test_backslashes_are_separators(tmp_path):
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "b.npz", signal=np.arange(64.0), fs=12_000)
    (tmp_path / "manifest.csv").write_text("file,label\n.\\a\\b.npz,x\n")
    assert len(load_dataset(tmp_path)) == 1
