"""Rolling-element bearings: the fault frequencies that follow from geometry.

Source: Randall and Antoni (2011), Rolling element bearing diagnostics - a tutorial, Mechanical Systems and Signal
Processing 25, 485-520.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BearingGeometry:
    """What decides a rolling bearing's fault frequencies.

    Attributes:
        n_elements: balls or rollers in one row, >= 3.
        element_diameter_mm: d, > 0 (only the ratio d/D matters, so any unit may stand in for mm).
        pitch_diameter_mm: D, diameter of the circle of element centres, > d.
        contact_angle_deg: a, 0 <= a < 90; 0 for a radially loaded deep-groove or cylindrical-roller bearing.

    Raises:
        ValueError: a number lies outside its range.

    Example:
        >>> BearingGeometry(9, element_diameter_mm=7.94, pitch_diameter_mm=39.04).n_elements
        9
    """

    n_elements: int
    element_diameter_mm: float
    pitch_diameter_mm: float
    contact_angle_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.n_elements < 3:
            raise ValueError(f"n_elements is {self.n_elements}, expected >= 3")
        if not 0 < self.element_diameter_mm < self.pitch_diameter_mm:
            raise ValueError(
                f"element_diameter_mm is {self.element_diameter_mm}, expected > 0 and below the pitch diameter "
                f"{self.pitch_diameter_mm}"
            )
        if not 0 <= self.contact_angle_deg < 90:
            raise ValueError(f"contact_angle_deg is {self.contact_angle_deg}, expected 0 <= angle < 90")


@dataclass(frozen=True)
class FaultOrders:
    """Fault frequencies in orders of shaft speed (multiply by rpm / 60 for Hz).

    Attributes:
        ftf: cage turns per shaft turn.
        bpfo: element passages over a point of the outer race.
        bpfi: element passages over a point of the inner race.
        bsf: turns of an element about itself; a defect on it strikes both races, so its impacts come at 2 bsf.
    """

    ftf: float
    bpfo: float
    bpfi: float
    bsf: float


def fault_orders(geometry: BearingGeometry) -> FaultOrders:
    """Kinematic fault orders for pure rolling, outer race fixed, inner race turning with the shaft.

    With `g = d/D cos a`: `FTF = (1 - g)/2`, `BPFO = n (1 - g)/2`, `BPFI = n (1 + g)/2`, `BSF = D (1 - g^2)/(2 d)`.
    Real rates lie up to 2 % below (slip) and 0.7 % above (contact angle under thrust).

    Example:
        >>> orders = fault_orders(BEARINGS["6205"])
        >>> [round(order, 2) for order in (orders.ftf, orders.bpfo, orders.bpfi, orders.bsf)]
        [0.4, 3.58, 5.42, 2.36]
    """
    n = geometry.n_elements
    g = geometry.element_diameter_mm / geometry.pitch_diameter_mm * math.cos(math.radians(geometry.contact_angle_deg))
    return FaultOrders(
        ftf=(1 - g) / 2,
        bpfo=n * (1 - g) / 2,
        bpfi=n * (1 + g) / 2,
        bsf=geometry.pitch_diameter_mm / (2 * geometry.element_diameter_mm) * (1 - g**2),
    )


_INCH_MM = 25.4

BEARINGS: dict[str, BearingGeometry] = {
    # measured, and published with the data sets that use them
    "6203": BearingGeometry(8, 0.2656 * _INCH_MM, 1.122 * _INCH_MM),  # SKF; CWRU fan end
    "6205": BearingGeometry(9, 0.3126 * _INCH_MM, 1.537 * _INCH_MM),  # SKF; CWRU drive end
    "6804": BearingGeometry(13, 3.5, 25.6),  # NSK; PRONOSTIA
    "ER-16K": BearingGeometry(9, 7.9375, 38.5),  # MB; SpectraQuest simulators
    "NICE": BearingGeometry(8, 0.235 * _INCH_MM, 1.245 * _INCH_MM),  # MFPT
    "UER204": BearingGeometry(8, 7.92, 34.55),  # LDK; XJTU-SY
    "ZA-2115": BearingGeometry(16, 0.331 * _INCH_MM, 2.815 * _INCH_MM, 15.17),  # Rexnord; IMS
    # usual ball complement, balls midway between bore and outer diameter
    "6204": BearingGeometry(8, 7.938, 33.5),
    "6206": BearingGeometry(9, 9.525, 46.0),
    "6207": BearingGeometry(9, 11.112, 53.5),
    "6208": BearingGeometry(9, 11.906, 60.0),
    "6308": BearingGeometry(8, 15.081, 65.0),
}
"""Bearings by designation. Makers differ: one designation may hide another number of balls, and orders off by 1 %."""
