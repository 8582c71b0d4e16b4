from pathlib import Path

import numpy as np
import pytest

from whirl.physics.rolling_bearing import BEARINGS, BearingGeometry, fault_orders


@pytest.mark.parametrize(
    ("bearing", "ftf", "bpfo", "bpfi", "twice_bsf"),
    [
        # Case Western Reserve University's table; its "rolling element" is 2 BSF
        ("6205", 0.39828, 3.5848, 5.4152, 4.7135),
        ("6203", 0.3817, 3.0530, 4.9469, 3.9874),
    ],
)
def test_published_multipliers_of_the_cwru_bearings(
    bearing: str, ftf: float, bpfo: float, bpfi: float, twice_bsf: float
) -> None:
    orders = fault_orders(BEARINGS[bearing])
    assert (orders.ftf, orders.bpfo, orders.bpfi) == pytest.approx((ftf, bpfo, bpfi), abs=1.5e-4)
    assert 2 * orders.bsf == pytest.approx(twice_bsf, abs=5e-4)


@pytest.mark.parametrize(
    ("bearing", "element_mm", "pitch_mm", "expected"),
    [
        ("6205", 7.94, 39.04, (0.3983, 3.5848, 5.4152, 2.3567)),
        ("6203", 6.75, 28.5, (0.3816, 3.0531, 4.9469, 1.9938)),
    ],
)
def test_orders_to_four_digits(bearing: str, element_mm: float, pitch_mm: float, expected: tuple[float, ...]) -> None:
    geometry = BEARINGS[bearing]
    orders = fault_orders(geometry)
    assert (orders.ftf, orders.bpfo, orders.bpfi, orders.bsf) == pytest.approx(expected, abs=5.1e-5)
    assert geometry.element_diameter_mm == pytest.approx(element_mm, abs=5e-3)
    assert geometry.pitch_diameter_mm == pytest.approx(pitch_mm, abs=5e-3)


def test_published_multipliers_of_the_spectraquest_bearing() -> None:
    orders = fault_orders(BEARINGS["ER-16K"])
    expected = (0.3969, 3.572, 5.428, 2.322)
    assert (orders.ftf, orders.bpfo, orders.bpfi, orders.bsf) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("bearing", "shaft_hz", "bpfo_hz", "bpfi_hz"),
    [
        ("ZA-2115", 2000 / 60, 236.4, 296.9),  # IMS, Qiu et al. 2006
        ("NICE", 25, 81.12, 118.88),  # MFPT
        ("UER204", 40, 123.32, 196.68),  # XJTU-SY
    ],
)
def test_published_frequencies_of_other_data_sets(
    bearing: str, shaft_hz: float, bpfo_hz: float, bpfi_hz: float
) -> None:
    orders = fault_orders(BEARINGS[bearing])
    assert (orders.bpfo * shaft_hz, orders.bpfi * shaft_hz) == pytest.approx((bpfo_hz, bpfi_hz), abs=0.05)


@pytest.mark.parametrize("bearing", BEARINGS)
def test_kinematic_identities(bearing: str) -> None:
    n, orders = BEARINGS[bearing].n_elements, fault_orders(BEARINGS[bearing])
    assert orders.bpfo + orders.bpfi == pytest.approx(n)
    assert orders.bpfo == pytest.approx(n * orders.ftf)
    assert orders.bpfi == pytest.approx(n * (1 - orders.ftf))
    # rolling without slip: the element's surface moves as the outer race seen from the cage
    g = 1 - 2 * orders.ftf
    assert orders.bsf == pytest.approx(
        orders.ftf * (1 + g) / g * np.cos(np.radians(BEARINGS[bearing].contact_angle_deg))
    )


def test_only_the_ratio_of_diameters_matters() -> None:
    assert fault_orders(BearingGeometry(9, 1, 5)) == fault_orders(BearingGeometry(9, 2, 10))


def test_a_contact_angle_speeds_the_cage_up() -> None:
    radial, angular = BearingGeometry(12, 10, 60), BearingGeometry(12, 10, 60, contact_angle_deg=40)
    assert fault_orders(radial).ftf < fault_orders(angular).ftf < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 8, 40), "n_elements is 2"),
        ((9, 0, 40), "element_diameter_mm is 0"),
        ((9, 41, 40), "below the pitch diameter 40"),
        ((9, 8, float("nan")), "nan"),
        ((9, 8, 40, 90), "contact_angle_deg is 90"),
    ],
)
def test_impossible_geometry(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BearingGeometry(*arguments)  # pyright: ignore[reportArgumentType]


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "rpm", "line"),
    [("105", 1797, "bpfi"), ("108", 1730, "bpfi"), ("130", 1797, "bpfo"), ("133", 1730, "bpfo")],
)
def test_measured_bearings_show_their_line(real_data: Path, file: str, rpm: int, line: str) -> None:
    """CWRU drive-end races with a 0.007 inch fault, at no and at full load."""
    from scipy.io import loadmat

    signal = loadmat(real_data / "cwru_12k_de" / f"{file}.mat")[f"X{file}_DE_time"].ravel()
    spectrum = np.fft.fft(signal)
    frequency_hz = np.fft.fftfreq(len(signal), 1 / 12_000)
    envelope = np.abs(np.fft.ifft(np.where((frequency_hz > 2000) & (frequency_hz < 4000), spectrum, 0))) ** 2
    power = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(envelope)))) ** 2
    orders = np.fft.rfftfreq(len(signal), 1 / 12_000) / (rpm / 60)
    expected = getattr(fault_orders(BEARINGS["6205"]), line)
    near = (orders > 0.9 * expected) & (orders < 1.1 * expected)
    measured = orders[near][power[near].argmax()]
    assert 0.98 * expected < measured < 1.007 * expected
    assert power[near].max() > 300 * np.median(power[near])
