import pytest
import torch

from whirl.physics.expected_lines import expectations
from whirl.physics.faults import Line, Signature


def in_orders(lines, **kwargs):
    return expectations(lines, n_classes=max(lines) + 1, freq_unit="order", spectrum="raw", **kwargs)


def windows(found):
    return [feature.windows[0] for feature in found.features]


def test_windows_stay_clear_of_other_lines_and_shaft_harmonics():
    found = windows(in_orders({0: [2.0, 2.3], 1: [0.45], 2: [1.2, 6.0]}))
    half_widths = {round((low + high) / 2, 3): round((high - low) / 2, 4) for low, high in found}
    # 10 %; halfway to 2.0 or 2.3; 0.05 away from 1X; 0.45 around a multiple of 1X
    assert half_widths == {2.0: 0.15, 2.3: 0.15, 0.45: 0.045, 1.2: 0.12, 6.0: 0.45}
    # closer to 3X than 0.1 orders: halfway to it, or to each other
    assert [round(high - low, 4) for low, high in windows(in_orders({0: [], 1: [3.05], 2: [3.1]}))] == [0.05, 0.05]


def test_table_of_own_overlapping_and_other_lines():
    whirl, shaft = Line("whirl", 0.41, 0.485, "required", "raw"), Line("1X", 0.9, 1.1, "optional", "raw")
    found = in_orders({0: [], 1: Signature((whirl, shaft), False, ""), 2: [(0.48, 0.52)], 4: [whirl, 3.0]})
    assert windows(found)[:3] == [(0.41, 0.485), (0.9, 1.1), (0.48, 0.52)]
    expected = [
        [0.08, 0.08, 0.08, 0.08],
        [0.9, 0.5, 0.5, 0.08],
        [0.5, 0.08, 0.9, 0.08],
        [0.5, 0.5, 0.5, 0.5],  # not listed
        [0.9, 0.08, 0.5, 0.9],
    ]
    torch.testing.assert_close(found.table, torch.tensor(expected))


def test_lines_in_hz_equal_lines_in_orders_at_reference_speed():
    in_hz = expectations({0: [], 1: [25.0, (70.0, 80.0)]}, 2, spectrum="raw", reference_rpm=1500)
    assert in_hz.features == in_orders({0: [], 1: [1.0, (2.8, 3.2)]}).features
    assert {feature.unit for feature in expectations({1: [25.0]}, 2).features} == {"hz"}


def test_line_in_both_spectra_has_pair_of_features():
    envelope, same = Line("BPFO", 3.5, 3.6, "required", "envelope"), Line("1X", 0.9, 1.1, "optional", "raw")
    found = expectations({0: [1.0], 1: [envelope, same]}, 2, freq_unit="order")
    assert [feature.kind for feature in found.features] == ["raw", "envelope", "envelope"]
    assert found.feature_pairs is not None
    assert found.feature_pairs.T.tolist() == [[0, 1], [2, 2], [0, 0]]
    assert in_orders({0: [1.0]}).feature_pairs is None


def test_empty_lists_give_no_features():
    found = expectations({0: [], 1: []}, n_classes=3)
    assert found.features == ()
    assert found.table.shape == (3, 0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lines": {0: [-5.0]}}, "line is -5.0"),
        ({"lines": {0: [(9.0, 5.0)]}}, r"line is \(9.0, 5.0\)"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"freq_unit": "rpm"}, "unknown freq_unit 'rpm'"),
        ({"spectrum": "cepstrum"}, "unknown spectrum 'cepstrum'"),
    ],
)
def test_rejects_invalid_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        expectations(**{"lines": {0: [1.0]}, "n_classes": 1} | kwargs)
