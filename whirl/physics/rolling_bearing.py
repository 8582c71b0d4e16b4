"""Rolling-element bearings: fault frequencies that follow from geometry, and a table of common bearings.

Sources: Randall and Antoni (2011), Rolling element bearing diagnostics - a tutorial, Mechanical Systems and Signal
Processing 25, 485-520, for a stationary outer race; Harris and Kotzalas (2006), Essential Concepts of Bearing
Technology, 5th edition, chapter 10, for any two speeds of the races.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whirl.validation import check_count, check_name, check_number

RotatingRace = Literal["inner", "outer"]
ROTATING_RACES: tuple[RotatingRace, ...] = ("inner", "outer")


@dataclass(frozen=True)
class BearingGeometry:
    """Dimensions that determine the fault frequencies of a rolling bearing.

    Attributes:
        n_elements: balls or rollers in one row, >= 3.
        element_diameter_mm: d, > 0 (only the ratio d/D matters, so any length unit can replace mm).
        pitch_diameter_mm: D, diameter of the circle of element centers, > d.
        contact_angle_deg: a, 0 <= a < 90; 0 for a radially loaded deep-groove or cylindrical-roller bearing.

    Numbers may be NumPy scalars; they are stored as Python numbers.

    Raises:
        ValueError: a number is out of range, or the elements do not fit on the pitch circle.

    Example:
        >>> BearingGeometry(9, element_diameter_mm=7.94, pitch_diameter_mm=39.04).n_elements
        9
    """

    n_elements: int
    element_diameter_mm: float
    pitch_diameter_mm: float
    contact_angle_deg: float = 0.0

    def __post_init__(self) -> None:
        n = check_count("n_elements", self.n_elements, 3)
        pitch = check_number("pitch_diameter_mm", self.pitch_diameter_mm, 0, open_ends=True)
        element = check_number("element_diameter_mm", self.element_diameter_mm, 0, open_ends=True)
        if not element < pitch:
            raise ValueError(f"element_diameter_mm is {element}, expected a number below the pitch diameter {pitch}")
        if element > pitch * math.sin(math.pi / n):
            raise ValueError(
                f"{n} elements of {element} do not fit on a pitch circle of {pitch}; give those of one row"
            )
        angle = check_number("contact_angle_deg", self.contact_angle_deg, 0)
        if not angle < 90:
            raise ValueError(f"contact_angle_deg is {angle}, expected 0 <= angle < 90")
        for name, value in zip(self.__dataclass_fields__, (n, element, pitch, angle), strict=True):
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class FaultOrders:
    """Fault frequencies in orders of shaft speed (multiply by rpm / 60 for Hz).

    Attributes:
        ftf: cage revolutions per shaft revolution.
        bpfo: element passages over a point of the outer race.
        bpfi: element passages over a point of the inner race.
        bsf: revolutions of an element about itself; a defect on it strikes both races, so its impacts come at 2 bsf.

    Numbers may be NumPy scalars or zero-dimensional tensors; they are stored as Python numbers.

    Example:
        >>> orders = FaultOrders(ftf=0.398, bpfo=3.585, bpfi=5.415, bsf=2.357)
        >>> orders.bpfo * 1797 / 60  # Hz at 1797 rpm
        107.37075
    """

    ftf: float
    bpfo: float
    bpfi: float
    bsf: float

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, float(getattr(self, name)))


def fault_orders(geometry: BearingGeometry, rotating_race: RotatingRace = "inner") -> FaultOrders:
    """Return the kinematic fault orders for pure rolling, with one race stationary and the other on the shaft.

    With `g = d/D cos a`: `BPFO = n (1 - g)/2`, `BPFI = n (1 + g)/2`, `BSF = D (1 - g^2)/(2 d)`. These depend on the
    speed of one race relative to the other, so they are the same whichever race rotates. The cage is different:
    `FTF = (1 - g)/2` if the inner race rotates, `FTF = (1 + g)/2` if the outer race does. The load zone is stationary,
    so shaft-rate sidebands belong to the defect on the rotating race: BPFI for "inner", BPFO for "outer".

    Real rates lie up to 2 % below (slip) and 0.7 % above (contact angle under thrust).

    Args:
        geometry: the bearing.
        rotating_race: the race that rotates with the shaft, "inner" or "outer" (wheels, idlers, planet bearings).

    Raises:
        ValueError: the race has another name.

    Example:
        >>> orders = fault_orders(BEARINGS["6205"])
        >>> [round(order, 2) for order in (orders.ftf, orders.bpfo, orders.bpfi, orders.bsf)]
        [0.4, 3.58, 5.42, 2.36]
        >>> round(fault_orders(BEARINGS["6205"], rotating_race="outer").ftf, 2)
        0.6
    """
    check_name("rotating_race", rotating_race, ROTATING_RACES)
    n = geometry.n_elements
    g = geometry.element_diameter_mm / geometry.pitch_diameter_mm * math.cos(math.radians(geometry.contact_angle_deg))
    return FaultOrders(
        ftf=(1 - g) / 2 if rotating_race == "inner" else (1 + g) / 2,
        bpfo=n * (1 - g) / 2,
        bpfi=n * (1 + g) / 2,
        bsf=geometry.pitch_diameter_mm / (2 * geometry.element_diameter_mm) * (1 - g**2),
    )


def _read_table() -> dict[str, tuple[BearingGeometry, str]]:
    """Geometry and source of each bearing in bearings.csv."""
    with Path(__file__).with_name("bearings.csv").open(encoding="utf-8", newline="") as file:
        return {
            designation: (
                BearingGeometry(
                    int(row["n_elements"]),
                    float(row["element_diameter_mm"]),
                    float(row["pitch_diameter_mm"]),
                    float(row["contact_angle_deg"]),
                ),
                " ".join(filter(None, (row["maker"], f"({row['source']})"))),
            )
            for row in csv.DictReader(file)
            for designation in row["designation"].split()
        }


_TABLE = _read_table()

BEARINGS: dict[str, BearingGeometry] = {name: geometry for name, (geometry, _) in _TABLE.items()}
"""Bearings by designation, one maker's internal design each, see `BEARING_SOURCES`.

Boundary dimensions are standardized, the internal design is not: another maker's bearing of the same designation can
have another number of balls, and more often another number of rollers. Where that matters, give the geometry or the
orders of the bearing at hand.
"""

BEARING_SOURCES: dict[str, str] = {name: source for name, (_, source) in _TABLE.items()}
"""Maker and source of each geometry in `BEARINGS`.

"derived from C0r and f0" means: the static load rating `C0r = f0 Z d^2 cos a` (ISO 76) and the factor f0, which
depends on d cos(a)/D, are satisfied within 1 % by one integer number Z of balls of one standard diameter (steps of
1/64 inch) midway between bore and outer diameter. Sizes that two combinations fit are left out. "Derived from C0r and
Cr" is the same with the dynamic load rating (ISO 281) instead of f0; the pitch diameter also agrees with the load
center of the catalogue.

Where the source states fault orders only, the geometry is the one that follows from them, with a pitch diameter of 1.
Figures of data sets and of their papers are those of the package bearing-datasets (V. Bauler) where that has them.
N, NU, NJ and NUP bearings differ in the flanges, not in the rollers (EPK, general catalogue 2011: equal load ratings).
E, as in NU206E, is the reinforced roller set: NU 206 ECP, NU206-E-TVP2. UC inserts are in the table where Timken's
orders agree with the deep-groove bearing of the same size; UC208 and UC209 differ between makers.

No source that states the number of rolling elements was found for NU2xx from 207 on, NU3xx, NU10xx, 12xx, 13xx, 22xx
and 23xx (balls) except two, 302xx from 205 on, 303xx, 322xx, 213xx, 222xx except two, 223xx, 72xx and 73xx with the
suffix BE or AC, and UC3xx: give their geometry or orders.
"""
