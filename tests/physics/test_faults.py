import itertools

import pytest

from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES, Line, required_band_hz, signature
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

ORDERS = fault_orders(BEARINGS["6205"])


def _lines(label: str) -> tuple[Line, ...]:
    found = signature(label, ORDERS)
    assert found is not None
    return found.lines


def _contains(lines: tuple[Line, ...], order: float) -> bool:
    return any(line.low_order <= order <= line.high_order for line in lines)


def _overlap(a: Line, b: Line) -> bool:
    return a.spectrum == b.spectrum and a.low_order <= b.high_order and b.low_order <= a.high_order


def test_class_names() -> None:
    assert JOURNAL_CLASSES == (
        "healthy",
        "misalignment",
        "imbalance",
        "clearance",
        "lubrication",
        "cavitation",
        "wear",
        "oil_whirl",
        "misalignment_imbalance",
        "wear_lubrication",
        "cavitation_clearance",
    )
    assert ROLLING_CLASSES == ("healthy", "inner_race", "outer_race", "ball")


@pytest.mark.parametrize("label", sorted({*JOURNAL_CLASSES, *ROLLING_CLASSES}))
def test_every_class_has_signature_with_valid_disjoint_windows(label: str) -> None:
    lines = _lines(label)
    assert all(0 < line.low_order < line.high_order for line in lines)
    assert len({(line.name, line.spectrum) for line in lines}) == len(lines)
    for a, b in itertools.combinations(lines, 2):
        assert not _overlap(a, b), f"{a} and {b} overlap"


@pytest.mark.parametrize(
    ("label", "orders"),
    [
        ("misalignment", (2, 3)),
        ("imbalance", (1,)),
        ("clearance", (1 / 2, 1 / 3, 3 / 2, 4 / 3, 5, 8)),
        ("oil_whirl", (0.42, 0.45, 0.48)),
        ("misalignment_imbalance", (1, 2, 3)),
        ("lubrication", (1,)),
        ("inner_race", (5.4152, 6.4152, 4.4152)),
        ("outer_race", (3.5848, 2 * 3.5848)),
        ("ball", (4.7135, 4.7135 + 0.3983)),
    ],
)
def test_fault_has_lines_at_its_orders(label: str, orders: tuple[float, ...]) -> None:
    for order in orders:
        assert _contains(_lines(label), order), order


def test_healthy_has_no_lines() -> None:
    assert _lines("healthy") == ()


def test_whirl_does_not_overlap_looseness() -> None:
    assert not any(_overlap(a, b) for a in _lines("oil_whirl") for b in _lines("clearance"))
    assert not _contains(_lines("oil_whirl"), 0.5)
    assert not _contains(_lines("clearance"), 0.48)


@pytest.mark.parametrize("mixed", ["misalignment_imbalance", "wear_lubrication", "cavitation_clearance"])
def test_combined_fault_requires_lines_of_both_faults(mixed: str) -> None:
    parts = [label for label in JOURNAL_CLASSES if label in mixed and label != mixed]
    assert len(parts) == 2
    required = {line for part in parts for line in _lines(part) if line.role == "required"}
    assert required <= {line for line in _lines(mixed) if line.role == "required"}


def test_rolling_lines_are_envelope_lines_and_allow_for_slip() -> None:
    for label, order in (("inner_race", ORDERS.bpfi), ("outer_race", ORDERS.bpfo), ("ball", 2 * ORDERS.bsf)):
        first = _lines(label)[0]
        assert (first.low_order, first.high_order) == pytest.approx((0.98 * order, 1.007 * order))
        assert all(line.spectrum == "envelope" for line in _lines(label))


def test_ball_lines_are_optional() -> None:
    assert all(line.role == "optional" for line in _lines("ball"))
    assert [line.name for line in _lines("inner_race") if line.role == "required"] == ["BPFI"]


@pytest.mark.parametrize("bearing", BEARINGS)
def test_lines_of_rolling_classes_do_not_overlap(bearing: str) -> None:
    orders = fault_orders(BEARINGS[bearing])
    found = [signature(label, orders) for label in ROLLING_CLASSES[1:]]
    for a, b in itertools.permutations([each.lines for each in found if each], 2):
        assert not any(_overlap(a[0], line) for line in b[1:])


def test_colliding_harmonics_of_6205_are_omitted() -> None:
    # 3 BPFO = 10.754 and 2 BPFI = 10.830; 3 x 2BSF = 14.14 and 14X
    assert not _contains(_lines("outer_race"), 3 * ORDERS.bpfo)
    assert not _contains(_lines("inner_race"), 2 * ORDERS.bpfi)


def test_rolling_faults_without_kinematics_have_no_lines_but_need_high_frequency() -> None:
    for label in ROLLING_CLASSES[1:]:
        found = signature(label)
        assert found is not None
        assert found.lines == ()
        assert found.needs_high_frequency


@pytest.mark.parametrize(
    ("alias", "label"),
    [
        ("normal", "healthy"),
        ("Normal", "healthy"),
        ("IR", "inner_race"),
        ("OR", "outer_race"),
        ("inner", "inner_race"),
        ("outer race", "outer_race"),
        ("unbalance", "imbalance"),
        ("Oil-Whirl", "oil_whirl"),
    ],
)
def test_synonyms(alias: str, label: str) -> None:
    assert signature(alias, ORDERS) == signature(label, ORDERS)


def test_bent_shaft_has_1x_line() -> None:
    assert _contains(_lines("bent_shaft"), 1)


def test_unknown_labels_have_no_signature() -> None:
    assert signature("gear_crack") is None
    assert signature("") is None


def test_required_band_of_classes_with_lines_only() -> None:
    assert required_band_hz(["healthy", "oil_whirl"], 6000) == pytest.approx(48.5)
    assert required_band_hz(["normal", "clearance"], 3600) == pytest.approx(8.04 * 60)
    assert required_band_hz(["imbalance"], 3000) == required_band_hz(["imbalance", "healthy"], 3000)


@pytest.mark.parametrize("labels", [["wear"], ["imbalance", "ball"], ["imbalance", "gear_crack"], ["healthy"], []])
def test_required_band_is_none_for_resonances_unknown_labels_and_no_lines(labels: list[str]) -> None:
    assert required_band_hz(labels, 3000) is None


@pytest.mark.parametrize("rpm", [0, -3000, float("nan")])
def test_rejects_invalid_max_rpm(rpm: float) -> None:
    with pytest.raises(ValueError, match="max_rpm"):
        required_band_hz(["imbalance"], rpm)
