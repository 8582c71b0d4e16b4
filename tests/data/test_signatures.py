"""Files whose content is not what their suffix says."""

import pickle
import zipfile

import numpy as np
import pytest

from whirl.data.reading import read


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("content", [b"", b"1,2\n3,4\n", bytes(range(256)), pickle.dumps([1, 2])])
def test_what_is_no_numpy_file_is_never_called_a_trustworthy_pickle(suffix, content, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"corrupt or truncated {suffix} file .ValueError: not in NumPy's") as caught:
        read(path)
    assert "pickle" not in str(caught.value)


def test_a_damaged_member_of_an_archive_is_named(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"damaged")
    with pytest.raises(ValueError, match=r"x\.npy is not an array in NumPy's format"):
        read(path)


@pytest.mark.parametrize("suffix", [".npy", ".mat", ".h5", ".wav", ".csv", ".gz"])
def test_a_wrong_suffix_is_named(suffix, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(1000.0), fs=12_000)
    path = (tmp_path / "a.npz").rename(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=r"is a file of the format \.npz by its first bytes"):
        read(path)


def test_a_document_of_an_office_program_is_no_archive_of_arrays(tmp_path):
    path = tmp_path / "a.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    with pytest.raises(ValueError, match="binary data"):
        read(path)
