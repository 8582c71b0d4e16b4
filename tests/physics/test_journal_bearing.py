import math

import numpy as np
import pytest

from whirl.physics.journal_bearing import (
    VG46_CST,
    WHIRL_RATIO_RANGE,
    eccentricity_ratio,
    film_thickness_ratio,
    kinematic_viscosity_cst,
    minimum_film_thickness,
    sommerfeld_number,
    walther_viscosity_pa_s,
    whirl_frequency_hz,
)

BEARING = {"journal_diameter_m": 0.1, "length_m": 0.06, "radial_clearance_m": 90e-6}


def test_sommerfeld_number_matches_hand_computation() -> None:
    # mu N / P = 0.02 * 50 / (5000 / 0.006), (R / c)^2 = (0.05 / 90e-6)^2
    assert sommerfeld_number(0.02, 3000, 5000, **BEARING) == pytest.approx(1.2e-6 * (0.05 / 90e-6) ** 2, rel=1e-12)
    assert sommerfeld_number(0.02, 3000, 5000, **BEARING) == pytest.approx(0.3704, abs=5e-5)


def test_sommerfeld_number_is_dimensionless() -> None:
    # the same bearing in units of mm, N, MPa s: every length x 1000, viscosity x 1e-6
    scaled = sommerfeld_number(0.02e-6, 3000, 5000, 100, 60, 90e-3)
    assert scaled == pytest.approx(sommerfeld_number(0.02, 3000, 5000, **BEARING), rel=1e-12)


def test_sommerfeld_number_broadcasts() -> None:
    S = sommerfeld_number(0.02, np.array([[1500], [3000]]), np.array([2500, 5000, 10_000]), **BEARING)
    assert S.shape == (2, 3)
    assert S[1, 1] == pytest.approx(0.3704, abs=5e-5)
    np.testing.assert_allclose(S[1], 2 * S[0])
    np.testing.assert_allclose(S[:, 0], 4 * S[:, 2])


@pytest.mark.parametrize(
    ("e", "S"), [(0.1, 0.990), (0.3, 0.272), (0.5, 0.106), (0.7, 0.033), (0.8, 0.0139), (0.9, 0.0033)]
)
def test_eccentricity_matches_published_table(e: float, S: float) -> None:
    assert eccentricity_ratio(S, 1) == pytest.approx(e, abs=0.005)


def test_eccentricity_solves_ocvirks_equation() -> None:
    e = np.linspace(0.001, 0.999, 999)
    S = (1 - e**2) ** 2 / (math.pi * e * np.sqrt(math.pi**2 * (1 - e**2) + 16 * e**2)) / 0.6**2
    np.testing.assert_allclose(eccentricity_ratio(S, 0.6), e, atol=1e-9)


def test_eccentricity_decreases_with_sommerfeld_number() -> None:
    assert np.all(np.diff(eccentricity_ratio(np.geomspace(1e-5, 1e3, 500), 0.5)) < 0)


def test_eccentricity_limits() -> None:
    assert eccentricity_ratio(1e-12, 0.5) == pytest.approx(1, abs=1e-4)
    # an unloaded journal: S (L/D)^2 -> 1 / (pi^2 e)
    assert eccentricity_ratio(1e6, 0.5) == pytest.approx(4 / (math.pi**2 * 1e6), rel=1e-6)


def test_film_thickness_limits() -> None:
    assert minimum_film_thickness(90e-6, 0) == 90e-6
    assert minimum_film_thickness(90e-6, 1) == 0
    assert film_thickness_ratio(3e-6, 1e-6, 1e-6) == pytest.approx(3 / math.sqrt(2))


def test_full_film_begins_one_to_two_decades_below_common_sommerfeld_numbers() -> None:
    def film_ratio(S: float) -> float:
        return float(film_thickness_ratio(minimum_film_thickness(90e-6, eccentricity_ratio(S, 0.6)), 0.6e-6, 0.8e-6))

    assert film_ratio(0.05) > 3  # full film
    assert film_ratio(0.001) == pytest.approx(3, abs=1)
    assert film_ratio(1e-5) < 1  # boundary lubrication


def test_viscosity_is_exact_at_reference_temperatures() -> None:
    np.testing.assert_allclose(kinematic_viscosity_cst([40, 100]), VG46_CST, rtol=1e-12)
    np.testing.assert_allclose(kinematic_viscosity_cst([40, 100], (100, 11)), (100, 11), rtol=1e-12)


def test_viscosity_matches_vogels_equation() -> None:
    # an independent three-parameter fit of ISO VG 46, mu = 8.17e-5 exp(828.4 / (T + 94))
    temperature_c = np.linspace(40, 100, 61)
    vogel_pa_s = 8.17e-5 * np.exp(828.4 / (temperature_c + 94))
    np.testing.assert_allclose(walther_viscosity_pa_s(temperature_c), vogel_pa_s, rtol=2e-3)


def test_viscosity_at_80_c_is_a_quarter_of_that_at_40_c() -> None:
    assert walther_viscosity_pa_s(80) / walther_viscosity_pa_s(40) == pytest.approx(0.24, abs=0.005)


def test_whirl_is_proportional_to_speed_and_whip_is_constant() -> None:
    rpm = np.array([2400, 4800, 7200, 9600])
    np.testing.assert_allclose(whirl_frequency_hz(rpm, 0.45), [18, 36, 54, 72])
    np.testing.assert_allclose(whirl_frequency_hz(rpm, 0.45, first_critical_hz=40), [18, 36, 40, 40])
    assert WHIRL_RATIO_RANGE == (0.42, 0.48)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sommerfeld_number(0.02, 0, 5000, **BEARING), "rpm is 0"),
        (lambda: sommerfeld_number(0.02, 3000, -1, **BEARING), "load_n is -1"),
        (lambda: sommerfeld_number(math.nan, 3000, 5000, **BEARING), "viscosity_pa_s is nan"),
        (lambda: eccentricity_ratio([0.1, 0], 0.6), "sommerfeld"),
        (lambda: eccentricity_ratio(0.1, math.inf), "length_to_diameter is inf"),
        (lambda: minimum_film_thickness(90e-6, 1.2), "eccentricity is 1.2"),
        (lambda: minimum_film_thickness(0, 0.5), "radial_clearance_m is 0"),
        (lambda: kinematic_viscosity_cst(-300), "kelvin"),
        (lambda: walther_viscosity_pa_s(40, density_kg_m3=0), "density_kg_m3 is 0"),
        (lambda: whirl_frequency_hz(3000, 0.6), "ratio is 0.6"),
        (lambda: whirl_frequency_hz(3000, 0.45, 0), "first_critical_hz is 0"),
    ],
)
def test_error_names_invalid_argument(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
