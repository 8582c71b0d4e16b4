"""Bearings as users write them: a designation, a geometry or four fault orders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whirl.physics.rolling_bearing import (
    BEARING_SOURCES,
    BEARINGS,
    BearingGeometry,
    FaultOrders,
    RotatingRace,
    fault_orders,
)
from whirl.validation import check_number, nearest_name

GEOMETRY_FIELDS = ("n_elements", "ball_diameter", "pitch_diameter", "contact_angle")
ORDER_FIELDS = ("bpfo", "bpfi", "bsf", "ftf")

_SYNONYMS = {
    "n_balls": "n_elements",
    "element_diameter": "ball_diameter",
    "element_diameter_mm": "ball_diameter",
    "ball_diameter_mm": "ball_diameter",
    "pitch_diameter_mm": "pitch_diameter",
    "contact_angle_deg": "contact_angle",
}
_MAKERS = (
    *("ASAHI", "C&U", "EPK", "FAFNIR", "FAG", "FBJ", "FYH", "HRB", "INA", "KBC", "KOYO", "LDK", "LYC", "MB", "MRC"),
    *("NACHI", "NKE", "NMB", "NSK", "NTN", "PEER", "PFI", "REXNORD", "RHP", "SCHAEFFLER", "SKF", "SNR", "TIMKEN"),
    *("URB", "ZKL", "ZVL", "ZWZ"),
)
_KEYS = {re.sub(r"\W", "", name).upper(): name for name in BEARINGS}
_CLEARANCE = re.compile(r"C[1-5](?!\d)")
_PAIR = re.compile(r"\s*([A-Za-z_]+)\s*[=:]\s*([^\s,=:]+)\s*,?")
_TOLERANCE = 0.02  # relative, for orders that makers round to two or three digits


@dataclass(frozen=True)
class Bearing:
    """A bearing with its fault orders and where they come from.

    Attributes:
        text: normalized text that `parse_bearing` reads back as the same bearing.
        orders: fault orders, in multiples of shaft speed.
        geometry: dimensions; None if the orders were given instead.
        source: maker and source of the geometry, or "given by the user".
        rotating_race: the race that rotates with the shaft.

    Example:
        >>> bearing = parse_bearing("SKF 6205-2RS/C3")
        >>> bearing.text, round(bearing.orders.bpfo, 2), bearing.geometry.n_elements
        ('6205', 3.58, 9)
    """

    text: str
    orders: FaultOrders
    geometry: BearingGeometry | None = None
    source: str = "given by the user"
    rotating_race: RotatingRace = "inner"


class UnknownBearingError(ValueError):
    """A designation that is not in the table, as opposed to a malformed geometry or malformed orders."""


def parse_bearing(text: str, rotating_race: RotatingRace = "inner") -> Bearing:
    """Parse one bearing, see `parse_bearings`.

    Raises:
        UnknownBearingError: the designation is not in `BEARINGS`.
        ValueError: the text lists several bearings, or is malformed.

    Example:
        >>> parse_bearing("9, 7.94, 39.04, 0").geometry
        BearingGeometry(n_elements=9, element_diameter_mm=7.94, pitch_diameter_mm=39.04, contact_angle_deg=0.0)
    """
    bearings = parse_bearings(text, rotating_race)
    if len(bearings) != 1:
        raise ValueError(f"bearing is {text!r}, expected one bearing, got {len(bearings)}")
    return bearings[0]


def parse_bearings(text: str, rotating_race: RotatingRace = "inner") -> tuple[Bearing, ...]:
    """Parse the bearings in a text, separated by semicolons.

    Each is written in one of three ways:

    - a designation in `BEARINGS`. Maker, seals, shields, clearance and spelling do not matter: "6205", "SKF 6205",
      "6205-2RS" and "6205 2Z/C3" are the same bearing. The internal design does: "7205C" (contact angle 15
      degrees) and "7205B" (40 degrees) are two bearings; "NU206 ECP" is in the table, "NU206" without E is not.
    - n_elements, ball_diameter, pitch_diameter, contact_angle (degrees; 0 if omitted), in this order or by name.
    - bpfo, bpfi, bsf, ftf in orders of shaft speed, in this order or by name. BSF is the rotation of the element about
      itself; a published "rolling element" frequency is often 2 BSF.

    Args:
        text: the bearings.
        rotating_race: the race that rotates with the shaft; it changes the cage order that follows from a geometry, and
            which race's lines have sidebands.

    Raises:
        UnknownBearingError: a designation is not in the table; the message names those of its size.
        ValueError: a number is missing or out of range, or the orders do not belong to one bearing.

    Example:
        >>> [bearing.text for bearing in parse_bearings("SKF 6205-2RS; 9, 7.94, 39.04")]
        ['6205', 'n_elements=9, ball_diameter=7.94, pitch_diameter=39.04, contact_angle=0.0']
        >>> parse_bearing("bpfo=3.585 bpfi=5.415 bsf=2.357 ftf=0.398").orders
        FaultOrders(ftf=0.398, bpfo=3.585, bpfi=5.415, bsf=2.357)
    """
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts:
        raise ValueError(f"bearing is {text!r}, expected {_EXPECTED}")
    return tuple(_parse(part, rotating_race) for part in parts)


def normalize_bearing(text: str) -> str:
    """Return the normalized text of the bearings; a designation that is not in the table stays as it is.

    Raises:
        ValueError: a geometry or orders are malformed.

    Example:
        >>> normalize_bearing("SKF 6205-2RS; Acme 17")
        '6205; Acme 17'
    """
    return "; ".join(_normalize(part.strip()) for part in text.split(";") if part.strip())


def bearing_from_geometry(geometry: BearingGeometry, rotating_race: RotatingRace = "inner") -> Bearing:
    """Make a bearing of a geometry.

    Example:
        >>> bearing_from_geometry(BearingGeometry(8, 6.75, 28.5)).text
        'n_elements=8, ball_diameter=6.75, pitch_diameter=28.5, contact_angle=0.0'
    """
    numbers = (
        geometry.n_elements,
        geometry.element_diameter_mm,
        geometry.pitch_diameter_mm,
        geometry.contact_angle_deg,
    )
    return Bearing(
        format_fields(GEOMETRY_FIELDS, numbers),
        fault_orders(geometry, rotating_race),
        geometry,
        rotating_race=rotating_race,
    )


def bearing_from_orders(orders: FaultOrders, rotating_race: RotatingRace = "inner") -> Bearing:
    """Make a bearing of fault orders; the outer race rotates also if the cage turns with more than half a turn.

    Example:
        >>> bearing = bearing_from_orders(FaultOrders(ftf=0.602, bpfo=3.585, bpfi=5.415, bsf=2.357))
        >>> bearing.text, bearing.rotating_race
        ('bpfo=3.585, bpfi=5.415, bsf=2.357, ftf=0.602', 'outer')
    """
    text = format_fields(ORDER_FIELDS, tuple(getattr(orders, name) for name in ORDER_FIELDS))
    return Bearing(text, orders, rotating_race="outer" if orders.ftf > 0.5 else rotating_race)


def format_fields(names: Sequence[str], values: Sequence[float]) -> str:
    """Write named numbers as `parse_bearings` reads them.

    Example:
        >>> format_fields(ORDER_FIELDS, (3.585, 5.415, 2.357, 0.398))
        'bpfo=3.585, bpfi=5.415, bsf=2.357, ftf=0.398'
    """
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


_FIELDS = f"{', '.join(GEOMETRY_FIELDS)}, or {', '.join(ORDER_FIELDS)}"
_EXPECTED = f"a designation in whirl.physics.BEARINGS, e.g. 6205, or {_FIELDS}"


def _parse(text: str, rotating_race: RotatingRace) -> Bearing:
    numbers = _numbers(text)
    if numbers is None:
        name = _find_designation(text)
        if name is None:
            raise UnknownBearingError(_unknown(text))
        geometry = BEARINGS[name]
        return Bearing(name, fault_orders(geometry, rotating_race), geometry, BEARING_SOURCES[name], rotating_race)
    try:
        if set(numbers) <= set(GEOMETRY_FIELDS):
            return bearing_from_geometry(_geometry(numbers), rotating_race)
        return bearing_from_orders(_orders(numbers), rotating_race)
    except ValueError as error:
        raise ValueError(f"bearing {text!r}: {error}") from None


def _normalize(text: str) -> str:
    try:
        return _parse(text, "inner").text
    except UnknownBearingError:
        return text


def _numbers(text: str) -> dict[str, float] | None:
    """Numbers by field; None for a text that is a designation."""
    pairs: list[tuple[str, str]] = _PAIR.findall(text)
    if pairs and not _PAIR.sub("", text).strip():
        fields = [_SYNONYMS.get(name.lower(), name.lower()) for name, _ in pairs]
        named = {field: _number(field, value) for field, (_, value) in zip(fields, pairs, strict=True)}
        if not (set(named) <= set(GEOMETRY_FIELDS) or set(named) <= set(ORDER_FIELDS)) or len(named) < len(pairs):
            raise ValueError(f"bearing {text!r} has the fields {', '.join(named)}; expected {_EXPECTED}")
        return named
    values = [_float_or_none(part) for part in re.split(r"\s*,\s*|\s+", text)]
    given = [value for value in values if value is not None]
    if len(given) not in (3, 4) or len(given) < len(values):
        return None
    is_geometry = given[0].is_integer() and (len(given) == 3 or given[1] < given[2] or not 0 < given[3] < 1)
    return dict(zip(GEOMETRY_FIELDS if is_geometry else ORDER_FIELDS, given, strict=False))


def _float_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _number(name: str, text: str) -> float:
    value = _float_or_none(text)
    if value is None:
        raise ValueError(f"{name} of the bearing is {text!r}, expected a number")
    return value


def _geometry(numbers: Mapping[str, float]) -> BearingGeometry:
    missing = [name for name in GEOMETRY_FIELDS[:3] if name not in numbers]
    if missing:
        raise ValueError(f"has no {missing[0]}")
    n = numbers["n_elements"]
    return BearingGeometry(
        int(n) if n.is_integer() else n,  # pyright: ignore[reportArgumentType] - a fraction is rejected there
        numbers["ball_diameter"],
        numbers["pitch_diameter"],
        numbers.get("contact_angle", 0.0),
    )


def _orders(numbers: Mapping[str, float]) -> FaultOrders:
    missing = [name for name in ORDER_FIELDS if name not in numbers]
    if missing:
        raise ValueError(f"has no {missing[0]}")
    bpfo, bpfi, bsf, ftf = (check_number(name, numbers[name], 0, open_ends=True) for name in ORDER_FIELDS)
    n = round(bpfo + bpfi)
    g = (bpfi - bpfo) / (bpfi + bpfo)
    if n < 3 or abs(bpfo + bpfi - n) > _TOLERANCE * n or not 0 < g < 1:
        raise ValueError(
            f"bpfo is {bpfo:g} and bpfi {bpfi:g}, expected bpfo < bpfi with an integer sum, the number of elements"
        )
    if min(abs(ftf - (1 - g) / 2), abs(ftf - (1 + g) / 2)) > _TOLERANCE:
        raise ValueError(f"ftf is {ftf:g}, expected about {(1 - g) / 2:.3f}, in orders of shaft speed and not in Hz")
    highest = (1 - g**2) / (2 * g)  # at contact angle 0
    if bsf > (1 + 5 * _TOLERANCE) * highest:
        raise ValueError(f"bsf is {bsf:g}, expected at most {highest:.3f}; was 2 x BSF given?")
    return FaultOrders(ftf=ftf, bpfo=bpfo, bpfi=bpfi, bsf=bsf)


def _find_designation(text: str) -> str | None:
    """Table entry of a designation with or without maker, seals, clearance and other suffixes."""
    tokens = _tokens(text)
    if sum(token in _KEYS for token in tokens) > 1:
        return None
    for length in range(len(tokens), 0, -1):
        stem, suffix = "".join(tokens[:length]), "".join(tokens[length : length + 1])
        # "7205CD", "NU206ECP": the first letter of the suffix is part of the designation
        for key, rest in ((stem + suffix[:1], suffix[1:]), (stem, suffix)):
            if key in _KEYS:
                return None if _is_other_design(key, rest) else _KEYS[key]
    return None


def _tokens(text: str) -> list[str]:
    """Letters and digits of a designation, in turn, without makers in front and without the clearance."""
    tokens = re.findall(r"C&U|A5|[A-Z]+|\d+", _CLEARANCE.sub(" ", text.upper()))
    while tokens and tokens[0] in _MAKERS:
        tokens.pop(0)
    if tokens and re.fullmatch("UC[FHPT][A-Z]*", tokens[0]):
        tokens[0] = "UC"  # a housing with its insert, e.g. UCP206
    return _split_seal(tokens)


def _split_seal(tokens: list[str]) -> list[str]:
    """Separate the 2 of two seals or shields from the digits of the size: "62052RS"."""
    if len(tokens) > 1 and tokens[0] not in _KEYS and tokens[0][:-1] in _KEYS and tokens[0][-1] == "2":
        return [tokens[0][:-1], "2", *tokens[1:]]
    return tokens


def _is_other_design(key: str, suffix: str) -> bool:
    """Whether a suffix stands for other rolling elements than those of the table entry.

    E is a reinforced set of balls or rollers, W a cylindrical roller bearing of NSK without it; AC and A5 are contact
    angles of 25 degrees, A alone is one of 30; B, C and D are steeper tapered roller bearings.
    """
    others = {"N": ("E", "W"), "7": ("E", "C", "5"), "3": ("E", "B", "C", "D")}.get(key[0], ("E",))
    return not key.endswith("E") and suffix.startswith(others)


def _unknown(text: str) -> str:
    size = _size("".join(_tokens(text)))
    same_size = [name for key, name in _KEYS.items() if size and _size(key) == size]
    hint = "."
    if same_size:
        hint = f"; the table has {', '.join(same_size)}. Another suffix is another internal design."
    elif not size and (close := nearest_name(text, tuple(_KEYS))):
        hint = f"; did you mean {_KEYS[close]!r}?"
    several = " Separate bearings by ';'." if sum(key in text for key in _KEYS) > 1 else ""
    return f"unknown bearing {text!r}{hint}{several} Expected {_EXPECTED}"


def _size(designation: str) -> str:
    """Type, series and bore of a designation, e.g. NU206 of NU206ECP; empty if it has none."""
    match = re.match(r"[A-Z]*\d+", designation)
    return match[0] if match else ""
