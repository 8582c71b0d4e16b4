"""Families of lines that faults of a rolling bearing write into an envelope spectrum, and which can be evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whirl.physics.rolling_bearing import FaultOrders

HARMONICS = (1, 2, 3)
"""Harmonics of a family that are looked for."""

MIN_HARMONICS = 2
"""A family with fewer usable harmonics is not evaluated: a single line may belong to anything."""

HIDDEN_BINS = 1.5
"""Distance in bins from a whole order up to which a line is hidden by a harmonic of the shaft."""

SHARED_SHARE = 0.005
"""Relative distance up to which two families' lines cannot be told apart; slip differs by as much."""

OTHERS_HARMONICS = 4
"""Harmonics of another family that are strong enough to be mistaken."""


@dataclass(frozen=True)
class FaultFamily:
    """The lines of one part of a bearing, at multiples of one order.

    Attributes:
        name: name of the frequency: BPFI, BPFO, 2BSF or FTF.
        part: part of the bearing: inner_race, outer_race, ball or cage.
        order: fundamental in orders of the shaft, without slip, > 0.
        sideband: distance in orders of the sidebands that the load zone writes beside each line; 0 where a stationary
            load writes none.
        alternates: whether successive impacts differ in strength, which writes faint lines halfway between the lines.
    """

    name: str
    part: str
    order: float
    sideband: float = 0.0
    alternates: bool = False


@dataclass(frozen=True)
class UsableLines:
    """Which harmonics of a family can be evaluated.

    Attributes:
        harmonics: usable ones among `HARMONICS`; fewer than two leave the family without an evaluation.
        reason: what hides the others, in words; empty where none is hidden.
    """

    harmonics: tuple[int, ...]
    reason: str = ""

    @property
    def is_judged(self) -> bool:
        """Whether enough lines are left."""
        return len(self.harmonics) >= MIN_HARMONICS


def fault_families(
    orders: FaultOrders, rotating_race: Literal["inner", "outer"] = "inner"
) -> tuple[FaultFamily, FaultFamily, FaultFamily, FaultFamily]:
    """Return the families of a bearing: inner race, outer race, rolling element, cage.

    A fault on a rotating race passes through the load zone once per turn, so its lines have sidebands at one order; a
    rolling element passes through it with the cage, so its lines have sidebands at FTF. An element strikes both races
    in each turn about itself, one harder than the other, so its fundamental is twice BSF with faint lines between.

    Args:
        orders: kinematics of the bearing.
        rotating_race: race that turns with the shaft.

    Example:
        >>> from whirl.physics.rolling_bearing import BEARINGS, fault_orders
        >>> for family in fault_families(fault_orders(BEARINGS["6205"])):
        ...     print(family.name, family.part, round(family.order, 3), round(family.sideband, 3))
        BPFI inner_race 5.415 1.0
        BPFO outer_race 3.585 0.0
        2BSF ball 4.713 0.398
        FTF cage 0.398 0.0
    """
    return (
        FaultFamily("BPFI", "inner_race", orders.bpfi, 1.0 if rotating_race == "inner" else 0.0),
        FaultFamily("BPFO", "outer_race", orders.bpfo, 0.0 if rotating_race == "inner" else 1.0),
        FaultFamily("2BSF", "ball", 2 * orders.bsf, orders.ftf, alternates=True),
        FaultFamily("FTF", "cage", orders.ftf),
    )


def usable_lines(
    family: FaultFamily, others: Sequence[FaultFamily], bins_per_order: float, max_order: float
) -> UsableLines:
    """Return which harmonics of a family are visible and belong to no other family.

    A harmonic is left out where it lies beyond the band, within 1.5 bins of a whole order, or within 0.5 % of one of
    the first four harmonics of another family.

    Args:
        family: the family.
        others: other families of the same bearing; the family itself among them is ignored.
        bins_per_order: resolution of the spectrum, > 0.
        max_order: highest order in the spectrum.

    Example:
        >>> from whirl.physics.rolling_bearing import BEARINGS, fault_orders
        >>> families = fault_families(fault_orders(BEARINGS["6203"]))
        >>> usable_lines(families[0], families, bins_per_order=40, max_order=40)
        UsableLines(harmonics=(1, 2, 3), reason='')
        >>> usable_lines(families[2], families, bins_per_order=40, max_order=40)  # 2 BSF is 3.988
        UsableLines(harmonics=(), reason='lines at 3.99, 7.98, 11.96 X fall on whole orders of the shaft')
    """
    hidden: dict[str, list[float]] = {}
    usable = []
    for harmonic in HARMONICS:
        order = harmonic * family.order
        why = _what_hides(order, family, others, bins_per_order, max_order)
        if why is None:
            usable.append(harmonic)
        else:
            hidden.setdefault(why, []).append(order)
    reasons = [f"{_lines(orders)} {why}" for why, orders in hidden.items()]
    return UsableLines(tuple(usable), "; ".join(reasons))


def _what_hides(
    order: float, family: FaultFamily, others: Sequence[FaultFamily], bins_per_order: float, max_order: float
) -> str | None:
    if order > max_order:
        return "beyond the band"
    if abs(order - round(order)) * bins_per_order <= HIDDEN_BINS:
        return "on whole orders of the shaft"
    for other in others:
        if other.name != family.name and any(
            abs(multiple * other.order / order - 1) <= SHARED_SHARE for multiple in range(1, OTHERS_HARMONICS + 1)
        ):
            return f"on lines of {other.name}"
    return None


def _lines(orders: Sequence[float]) -> str:
    """Format orders for people.

    Example:
        >>> _lines([3.5848]), _lines([3.5848, 7.1696])
        ('line at 3.58 X falls', 'lines at 3.58, 7.17 X fall')
    """
    listed = ", ".join(f"{order:.2f}" for order in orders)
    return f"line at {listed} X falls" if len(orders) == 1 else f"lines at {listed} X fall"
