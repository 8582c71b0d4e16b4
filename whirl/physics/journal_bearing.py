"""Hydrodynamic journal bearings: operating point, film thickness, lubricant viscosity, oil whirl.

All functions broadcast: they accept numbers or arrays and return float64 numbers or arrays of the broadcast shape.

Sources: Ocvirk (1952), NACA TN 2808, short-bearing solution; Hamrock, Schmid and Jacobson (2004), Fundamentals of
Fluid Film Lubrication; ASTM D341 for viscosity; San Andres, Modern Lubrication Theory, for oil whirl.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Quantity = NDArray[np.float64]  # np.float64 if all arguments are numbers

WHIRL_RATIO_RANGE = (0.42, 0.48)
"""Observed ratio of oil-whirl frequency to shaft speed; theory gives 0.5 without side leakage, which lowers it."""

VG46_CST = (46.0, 6.8)
"""Kinematic viscosity of an ISO VG 46 mineral oil at 40 and 100 deg C, in cSt (mm^2/s)."""

VG46_DENSITY_KG_M3 = 860.0

_N_BISECTIONS = 50  # narrows [0, 1] to 2^-50 ~ 1e-15, the resolution of a float64


def sommerfeld_number(
    viscosity_pa_s: ArrayLike,
    rpm: ArrayLike,
    load_n: ArrayLike,
    journal_diameter_m: ArrayLike,
    length_m: ArrayLike,
    radial_clearance_m: ArrayLike,
) -> Quantity:
    """Compute the Sommerfeld number `S = (mu N / P) (R / c)^2`, dimensionless, > 0.

    N is the speed in revolutions per second (not rad/s: books that use omega quote a number 2 pi larger),
    `P = W / (L D)` the load per projected area, R the journal's radius and c the radial (not diametral) clearance. Some
    books call the inverse the Sommerfeld number. S describes the operating point, not damage: 0.05 to 0.5 is common
    design practice; light load and high speed give high S.

    Args:
        viscosity_pa_s: dynamic viscosity mu, > 0.
        rpm: shaft speed, > 0.
        load_n: radial load W, > 0.
        journal_diameter_m: D = 2 R, > 0.
        length_m: axial length L, > 0.
        radial_clearance_m: c, > 0.

    Raises:
        ValueError: a quantity is not positive and finite.

    Example:
        >>> S = sommerfeld_number(0.02, rpm=3000, load_n=5000, journal_diameter_m=0.1, length_m=0.06,
        ...                       radial_clearance_m=90e-6)
        >>> round(float(S), 4)
        0.3704
    """
    mu, speed = _positive("viscosity_pa_s", viscosity_pa_s), _positive("rpm", rpm) / 60
    D, L = _positive("journal_diameter_m", journal_diameter_m), _positive("length_m", length_m)
    pressure = _positive("load_n", load_n) / (L * D)
    return mu * speed / pressure * (D / 2 / _positive("radial_clearance_m", radial_clearance_m)) ** 2


def eccentricity_ratio(sommerfeld: ArrayLike, length_to_diameter: ArrayLike) -> Quantity:
    """Compute the eccentricity ratio e in (0, 1) of a short plain bearing (Ocvirk) by bisection.

    Solves `S (L/D)^2 = (1 - e^2)^2 / (pi e sqrt(pi^2 (1 - e^2) + 16 e^2))`; e falls as S grows. The short-bearing
    approximation holds for L/D up to about 0.7.

    Args:
        sommerfeld: S, see `sommerfeld_number`, > 0.
        length_to_diameter: slenderness L/D, > 0.

    Raises:
        ValueError: a quantity is not positive and finite.

    Example:
        >>> np.round(eccentricity_ratio([0.990, 0.106, 0.0033], length_to_diameter=1), 2)
        array([0.1, 0.5, 0.9])
    """
    target = _positive("sommerfeld", sommerfeld) * _positive("length_to_diameter", length_to_diameter) ** 2
    low, high = np.zeros_like(target), np.ones_like(target)
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        is_too_small = _ocvirk(middle) > target
        low, high = np.where(is_too_small, middle, low), np.where(is_too_small, high, middle)
    return ((low + high) / 2)[()]


def minimum_film_thickness(radial_clearance_m: ArrayLike, eccentricity: ArrayLike) -> Quantity:
    """Compute the minimum film thickness `h_min = c (1 - e)` in meters.

    Args:
        radial_clearance_m: c, > 0.
        eccentricity: e, in [0, 1].

    Raises:
        ValueError: c is not positive or e lies outside [0, 1].

    Example:
        >>> float(minimum_film_thickness(90e-6, 0.5))
        4.5e-05
    """
    e = np.asarray(eccentricity, dtype=np.float64)
    if not np.all((e >= 0) & (e <= 1)):
        raise ValueError(f"eccentricity is {eccentricity}, expected numbers in [0, 1]")
    return _positive("radial_clearance_m", radial_clearance_m) * (1 - e)


def film_thickness_ratio(
    minimum_film_m: ArrayLike, journal_roughness_m: ArrayLike, bush_roughness_m: ArrayLike
) -> Quantity:
    """Compute the ratio of film thickness to composite roughness, `lambda = h_min / sqrt(s1^2 + s2^2)`, dimensionless.

    The ratio determines the lubrication regime: below 1 boundary, 1 to 3 mixed, above 3 full film. The Sommerfeld
    number does not: lambda = 3 lies one to two decades below common values of S.

    Args:
        minimum_film_m: h_min, > 0.
        journal_roughness_m: rms roughness s1 of the journal, > 0.
        bush_roughness_m: rms roughness s2 of the bush, > 0.

    Raises:
        ValueError: a quantity is not positive and finite.

    Example:
        >>> round(float(film_thickness_ratio(5e-6, 0.6e-6, 0.8e-6)), 6)
        5.0
    """
    journal, bush = (
        _positive("journal_roughness_m", journal_roughness_m),
        _positive("bush_roughness_m", bush_roughness_m),
    )
    return _positive("minimum_film_m", minimum_film_m) / np.hypot(journal, bush)


def kinematic_viscosity_cst(temperature_c: ArrayLike, reference_cst: tuple[float, float] = VG46_CST) -> Quantity:
    """Compute the kinematic viscosity of an oil in cSt after Walther (ASTM D341).

    `log10 log10 (nu + 0.7) = A - B log10 T`, T in kelvin, A and B from nu at 40 and 100 deg C.

    Args:
        temperature_c: oil temperature in deg C, > -273.15.
        reference_cst: nu at 40 and at 100 deg C.

    Raises:
        ValueError: a quantity is not positive.

    Example:
        >>> np.round(kinematic_viscosity_cst([40, 70, 100]), 1)
        array([46. , 14.8,  6.8])
    """
    log_kelvin = np.log10(np.array([313.15, 373.15]))
    log_log_cst = np.log10(np.log10(_positive("reference_cst", reference_cst) + 0.7))
    slope = (log_log_cst[0] - log_log_cst[1]) / (log_kelvin[1] - log_kelvin[0])
    log_temperature = np.log10(_positive("temperature in kelvin", np.add(temperature_c, 273.15)))
    return 10**10 ** (log_log_cst[0] - slope * (log_temperature - log_kelvin[0])) - 0.7


def walther_viscosity_pa_s(
    temperature_c: ArrayLike,
    reference_cst: tuple[float, float] = VG46_CST,
    density_kg_m3: float = VG46_DENSITY_KG_M3,
) -> Quantity:
    """Compute the dynamic viscosity `mu = rho nu` of an oil in Pa s, with nu after Walther.

    Args:
        temperature_c: oil temperature in deg C.
        reference_cst: kinematic viscosity at 40 and at 100 deg C in cSt.
        density_kg_m3: density rho, assumed constant.

    Raises:
        ValueError: a quantity is not positive.

    Example:
        >>> np.round(1000 * walther_viscosity_pa_s([40, 60, 80, 100]), 1)
        array([39.6, 17.7,  9.5,  5.8])
    """
    return _positive("density_kg_m3", density_kg_m3) * 1e-6 * kinematic_viscosity_cst(temperature_c, reference_cst)


def whirl_frequency_hz(rpm: ArrayLike, ratio: ArrayLike = 0.47, first_critical_hz: ArrayLike = np.inf) -> Quantity:
    """Compute the frequency of oil whirl in Hz.

    The frequency is proportional to the shaft speed until it reaches the first critical frequency, where it locks (oil
    whip).

    Args:
        rpm: shaft speed, > 0.
        ratio: ratio of whirl frequency to shaft speed, in (0, 0.5]; machines show 0.42 to 0.48 (`WHIRL_RATIO_RANGE`).
        first_critical_hz: first bending natural frequency of the rotor; infinite for a rigid rotor.

    Raises:
        ValueError: the speed or critical frequency is not positive, or the ratio lies outside (0, 0.5].

    Example:
        >>> np.round(whirl_frequency_hz([3000, 6000, 9000], ratio=0.46, first_critical_hz=50), 6)
        array([23., 46., 50.])
    """
    whirl_ratio = _positive("ratio", ratio)
    if np.any(whirl_ratio > 0.5):
        raise ValueError(f"ratio is {ratio}, expected numbers in (0, 0.5]")
    critical = np.asarray(first_critical_hz, dtype=np.float64)
    if not np.all(critical > 0):
        raise ValueError(f"first_critical_hz is {first_critical_hz}, expected numbers > 0")
    return np.minimum(whirl_ratio * _positive("rpm", rpm) / 60, critical)


def _ocvirk(e: Quantity) -> Quantity:
    """Return `S (L/D)^2` at eccentricity ratio e."""
    x = 1 - e**2
    return x**2 / (np.pi * e * np.sqrt(np.pi**2 * x + 16 * e**2))


def _positive(name: str, value: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(value, dtype=np.float64)
    if not np.all(np.isfinite(array) & (array > 0)):
        raise ValueError(f"{name} is {value}, expected finite numbers > 0")
    return array
