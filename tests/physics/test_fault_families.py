"""Families of lines and which of them can be evaluated."""

import pytest

from whirl.physics.fault_families import FaultFamily, fault_families, usable_lines
from whirl.physics.rolling_bearing import BEARINGS, BearingGeometry, FaultOrders, fault_orders


def lines_of(families, name, bins_per_order=40.0, max_order=100.0):
    family = next(each for each in families if each.name == name)
    return usable_lines(family, families, bins_per_order, max_order)


def test_sidebands_belong_to_the_rotating_race_and_the_elements():
    orders = fault_orders(BEARINGS["6205"])
    inner = {family.name: family.sideband for family in fault_families(orders)}
    outer = {family.name: family.sideband for family in fault_families(orders, "outer")}
    assert inner == {"BPFI": 1, "BPFO": 0, "2BSF": orders.ftf, "FTF": 0}
    assert outer == inner | {"BPFI": 0, "BPFO": 1}


def test_all_lines_of_a_6205_are_usable():
    families = fault_families(fault_orders(BEARINGS["6205"]))
    assert all(lines_of(families, name).harmonics == (1, 2, 3) for name in ("BPFI", "BPFO", "2BSF"))


def test_a_large_bearing_with_orders_beyond_forty():
    families = fault_families(fault_orders(BearingGeometry(40, 18, 400)))
    assert families[0].order > 20
    assert lines_of(families, "BPFI").harmonics == (1, 2, 3)


def test_harmonics_beyond_the_band_are_left_out():
    families = fault_families(fault_orders(BEARINGS["6205"]))
    found = lines_of(families, "BPFI", max_order=12)
    assert found.harmonics == (1, 2)
    assert found.is_judged
    assert found.reason == "line at 16.25 X falls beyond the band"
    assert not lines_of(families, "BPFI", max_order=8).is_judged


def test_whole_orders_hide_a_family():
    families = fault_families(FaultOrders(ftf=0.4, bpfo=3.0, bpfi=5.0, bsf=2.2))
    found = lines_of(families, "BPFO")
    assert not found.is_judged
    assert found.reason == "lines at 3.00, 6.00, 9.00 X fall on whole orders of the shaft"
    assert lines_of(families, "2BSF").is_judged


def test_one_hidden_harmonic_leaves_the_others():
    family = FaultFamily("BPFO", "outer_race", 10 / 3)
    found = usable_lines(family, [family], 40, 40)
    assert found.harmonics == (1, 2)
    assert found.reason == "line at 10.00 X falls on whole orders of the shaft"


def test_coarser_spectra_hide_more():
    families = fault_families(fault_orders(BEARINGS["6203"]))  # BPFI 4.947
    assert lines_of(families, "BPFI", bins_per_order=40).harmonics == (1, 2, 3)
    assert lines_of(families, "BPFI", bins_per_order=20).harmonics == (2, 3)


@pytest.mark.parametrize("ratio", [1.0, 1.003, 2.0])
def test_lines_of_another_family_hide_a_family(ratio):
    families = fault_families(FaultOrders(ftf=0.4, bpfo=3.37, bpfi=5.63, bsf=3.37 * ratio / 2))
    found = lines_of(families, "2BSF")
    assert not found.is_judged
    assert "on lines of BPFO" in found.reason


def test_lines_one_percent_apart_are_distinguished():
    families = fault_families(FaultOrders(ftf=0.4, bpfo=3.37, bpfi=5.63, bsf=3.37 * 1.01 / 2))
    assert lines_of(families, "2BSF").harmonics == (1, 2, 3)
