"""Bearings given by designation, by geometry or by orders."""

import math

import numpy as np
import pytest

from whirl.physics.bearings import (
    UnknownBearingError,
    bearing_from_geometry,
    normalize_bearing,
    parse_bearing,
    parse_bearings,
)
from whirl.physics.rolling_bearing import BEARING_SOURCES, BEARINGS, BearingGeometry, RotatingRace, fault_orders

# NSK, Rolling Bearings, catalogue E1102: static load rating C0r in N and factor f0.
NSK_RATINGS = {
    "6000": (1970, 12.4), "6001": (2370, 13.2), "6002": (2830, 13.9), "6003": (3250, 14.4), "6004": (5000, 13.8),
    "6005": (5850, 14.5), "6006": (8300, 14.7), "6007": (10300, 14.8), "6008": (11500, 15.3),
    "6200": (2390, 13.2), "6201": (3050, 12.3), "6202": (3750, 13.2), "6203": (4800, 13.2), "6204": (6600, 13.1),
    "6205": (7850, 13.9), "6206": (11300, 13.8), "6207": (15300, 13.8), "6208": (17900, 14.0), "6209": (20400, 14.4),
    "6210": (23200, 14.4), "6211": (29300, 14.3), "6212": (36000, 14.3), "6213": (40000, 14.4), "6214": (44000, 14.5),
    "6215": (49500, 14.7), "6216": (53000, 14.6), "6217": (62000, 14.5), "6218": (71500, 14.5), "6219": (82000, 14.4),
    "6220": (93000, 14.4),
    "6300": (3450, 11.2), "6301": (4200, 11.1), "6302": (5450, 12.3), "6303": (6650, 12.4), "6304": (7900, 12.4),
    "6305": (11200, 13.2), "6306": (15000, 13.3), "6307": (19200, 13.2), "6308": (24000, 13.2), "6309": (32000, 13.1),
    "6310": (38500, 13.2), "6311": (44500, 13.1), "6312": (52000, 13.1), "6313": (60000, 13.2), "6314": (68000, 13.2),
    "6315": (77000, 13.2), "6316": (86500, 13.3), "6317": (97000, 13.3), "6318": (107000, 13.3),
    "6319": (119000, 13.3), "6320": (141000, 13.2),
    "7200C": (2650, 13.3), "7201C": (3850, 12.5), "7202C": (4550, 13.2), "7203C": (5850, 13.4), "7204C": (8150, 13.3),
    "7205C": (10200, 14.0), "7206C": (14700, 13.9), "7207C": (19900, 13.9), "7208C": (25200, 14.1),
    "7209C": (28800, 14.2), "7210C": (31500, 14.5), "7211C": (40000, 14.5), "7212C": (49500, 14.4),
    "7213C": (58500, 14.6),
}  # fmt: skip

# NSK, catalogue E1102: dynamic and static load rating in N, load center and width in mm.
NSK_ANGULAR_CONTACT = {
    "7200A": (5400, 2710, 10.3, 9), "7200B": (5000, 2500, 12.9, 9), "7300A": (9300, 4300, 12, 11),
    "7300B": (8750, 4050, 14.9, 11), "7201A": (8000, 4050, 11.4, 10), "7201B": (7450, 3750, 14.2, 10),
    "7301A": (9450, 4500, 13.1, 12), "7301B": (8850, 4200, 16.3, 12), "7202A": (8650, 4650, 12.7, 11),
    "7202B": (7950, 4300, 16, 11), "7302A": (13400, 7100, 14.7, 13), "7302B": (12500, 6600, 18.5, 13),
    "7203A": (10800, 6000, 14.2, 12), "7203B": (9950, 5500, 18, 12), "7303A": (15900, 8650, 16.2, 14),
    "7303B": (14800, 8000, 20.4, 14), "7204A": (14500, 8300, 16.7, 14), "7204B": (13300, 7650, 21.1, 14),
    "7304A": (18700, 10400, 17.9, 15), "7304B": (17300, 9650, 22.6, 15), "7205A": (16200, 10300, 18.6, 15),
    "7205B": (14800, 9400, 23.7, 15), "7305A": (26400, 15800, 21.1, 17), "7305B": (24400, 14600, 26.7, 17),
    "7206A": (22500, 14800, 21.3, 16), "7206B": (20500, 13500, 27.3, 16), "7306A": (33500, 20900, 24.2, 19),
    "7306B": (31000, 19300, 30.9, 19), "7207A": (29700, 20100, 23.9, 17), "7207B": (27100, 18400, 30.9, 17),
    "7307A": (40000, 26300, 27.1, 21), "7307B": (36500, 24200, 34.6, 21), "7208A": (35500, 25100, 26.3, 18),
    "7208B": (32000, 23000, 34.2, 18), "7308A": (49000, 33000, 30.3, 23), "7308B": (45000, 30500, 38.8, 23),
    "7209A": (39500, 28700, 28.3, 19), "7209B": (36000, 26200, 36.8, 19), "7309A": (63500, 43500, 33.4, 25),
    "7309B": (58500, 40000, 42.9, 25), "7210A": (41500, 31500, 30.2, 20), "7210B": (37500, 28600, 39.4, 20),
    "7310A": (74000, 52000, 36.6, 27), "7310B": (68000, 48000, 47.1, 27), "7211A": (51000, 39500, 32.9, 21),
    "7211B": (46500, 36000, 43, 21), "7311A": (86000, 61500, 39.8, 29), "7311B": (79000, 56500, 51.2, 29),
    "7212A": (62000, 48500, 35.5, 22), "7212B": (56000, 44500, 46.7, 22), "7312A": (98000, 71500, 42.9, 31),
    "7312B": (90000, 65500, 55.4, 31), "7213A": (70500, 58000, 38.2, 23), "7213B": (63500, 52500, 50.3, 23),
    "7313A": (111000, 82000, 46.1, 33), "7313B": (102000, 75500, 59.5, 33), "7214A": (76500, 63500, 40.1, 24),
    "7214B": (69000, 58000, 52.9, 24), "7214C": (79500, 64500, 25.05, 24), "7314A": (125000, 93500, 49.25, 35),
    "7314B": (114497, 86000, 63.65, 35),
}  # fmt: skip

# ISO 281, table 2: fc of radial and angular-contact ball bearings over d cos(a) / D.
FC = {
    0.12: 57.5, 0.14: 58.8, 0.16: 59.6, 0.18: 59.9, 0.20: 59.9, 0.22: 59.6, 0.24: 59.0, 0.26: 58.2, 0.28: 57.1,
    0.30: 56.0,
}  # fmt: skip

# ISO 76, table 1: f0 of radial and angular-contact ball bearings over d cos(a) / D.
F0 = {
    0.14: 15.4, 0.15: 15.2, 0.16: 14.9, 0.17: 14.7, 0.18: 14.4, 0.19: 14.2, 0.20: 14.0, 0.21: 13.7, 0.22: 13.5,
    0.23: 13.2, 0.24: 13.0, 0.25: 12.8, 0.26: 12.5, 0.27: 12.3, 0.28: 12.1, 0.29: 11.8, 0.30: 11.6, 0.31: 11.4,
    0.32: 11.2, 0.33: 10.9,
}  # fmt: skip


@pytest.mark.parametrize("name", NSK_RATINGS)
def test_geometry_gives_the_published_static_load_rating(name: str) -> None:
    rating_n, f0 = NSK_RATINGS[name]
    geometry = BEARINGS[name]
    cosine = math.cos(math.radians(geometry.contact_angle_deg))
    ratio = geometry.element_diameter_mm * cosine / geometry.pitch_diameter_mm
    assert np.interp(ratio, list(F0), list(F0.values())) == pytest.approx(f0, abs=0.2)
    elements = rating_n / (f0 * geometry.element_diameter_mm**2 * cosine)
    assert elements == pytest.approx(geometry.n_elements, rel=0.015)


@pytest.mark.parametrize("name", NSK_ANGULAR_CONTACT)
def test_geometry_gives_the_published_ratings_and_load_center(name: str) -> None:
    dynamic_n, static_n, load_center_mm, width_mm = NSK_ANGULAR_CONTACT[name]
    geometry = BEARINGS[name]
    n, d, pitch_mm = geometry.n_elements, geometry.element_diameter_mm, geometry.pitch_diameter_mm
    angle = math.radians(geometry.contact_angle_deg)
    ratio = d * math.cos(angle) / pitch_mm
    f0, fc = np.interp(ratio, list(F0), list(F0.values())), np.interp(ratio, list(FC), list(FC.values()))
    assert f0 * n * d**2 * math.cos(angle) == pytest.approx(static_n, rel=0.012)
    assert 1.3 * fc * math.cos(angle) ** 0.7 * n ** (2 / 3) * d**1.8 == pytest.approx(dynamic_n, rel=0.012)
    assert (width_mm + pitch_mm * math.tan(angle)) / 2 == pytest.approx(load_center_mm, abs=0.11)


# Published BPFO, BPFI, BSF and FTF; the sources are those in the table.
PUBLISHED_ORDERS = {
    "22205E1": (6.1852, 8.8148, 2.7015, 0.4123), "2303": (3.4222, 5.5778, 1.8561, 0.3802),
    "22228": (205.3 / 25, 269.7 / 25, 89.1 / 25, 10.8 / 25), "NU206E": (5.24, 7.76, 2.49, 0.40),
    "ER-12K": (3.048, 4.95, 1.992, 0.381),
    "6210": (4.0929, 5.9071, 2.6652, 0.4093),  # Schaeffler's 6210-C-2HRS
    "UC204": (3.052, 4.948, 1.992, 0.382), "UC205": (3.574, 5.426, 2.328, 0.397),
    "UC206": (3.568, 5.432, 2.311, 0.396), "UC207": (3.565, 5.435, 2.303, 0.396),
    "UC210": (4.093, 5.907, 2.665, 0.409), "UC211": (4.078, 5.922, 2.620, 0.408),
    "UC212": (4.066, 5.934, 2.584, 0.407), "UC213": (4.099, 5.901, 2.685, 0.410),
    "UC214": (4.104, 5.896, 2.702, 0.410),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED_ORDERS)
def test_published_orders(name: str) -> None:
    orders = fault_orders(BEARINGS[name])
    ours = (orders.bpfo, orders.bpfi, orders.bsf, orders.ftf)
    assert ours == pytest.approx(PUBLISHED_ORDERS[name], rel=0.004, abs=0.005)


@pytest.mark.parametrize("name", PUBLISHED_ORDERS)
def test_published_orders_belong_to_one_bearing(name: str) -> None:
    bpfo, bpfi, bsf, ftf = PUBLISHED_ORDERS[name]
    n = BEARINGS[name].n_elements
    g = (bpfi - bpfo) / n
    assert bpfo + bpfi == pytest.approx(n, abs=0.01)
    assert ftf == pytest.approx(bpfo / n, abs=0.004)
    assert bsf <= (1 - g**2) / (2 * g) * 1.01  # the value at contact angle 0


def test_every_bearing_of_the_table_names_its_source() -> None:
    assert set(BEARING_SOURCES) == set(BEARINGS)
    assert all(len(source) > 10 for source in BEARING_SOURCES.values())
    derived = {name for name, source in BEARING_SOURCES.items() if "C0r" in source}
    assert derived <= set(NSK_RATINGS) | set(NSK_ANGULAR_CONTACT)


def test_every_designation_is_its_own_normal_form() -> None:
    for name in BEARINGS:
        bearing = parse_bearing(name)
        assert (bearing.text, bearing.source) == (name, BEARING_SOURCES[name])
        assert bearing.orders == fault_orders(BEARINGS[name])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("6205", "6205"),
        ("6205-2RS", "6205"),
        ("SKF 6205", "6205"),
        ("skf 6205 2rs", "6205"),
        ("6205 2Z/C3", "6205"),
        ("62052RS", "6205"),
        ("6205ZZ", "6205"),
        ("NSK 6205DDU", "6205"),
        ("NTN-SNR 6205LLU/5K", "6205"),
        ("6205.2RSR.C3", "6205"),
        (" 6205 ", "6205"),
        ("er16k", "ER-16K"),
        ("MB ER-16K", "ER-16K"),
        ("ZA 2115", "ZA-2115"),
        ("NU 205 ECP", "NU205E"),
        ("FAG NU 206-E-TVP2", "NU206E"),
        ("NU206 ECP/C3", "NU206E"),
        ("NSK NU206EW", "NU206E"),
        ("NJ204", "NJ204"),
        ("30204 J2/Q", "30204"),
        ("22205-E1-XL-K", "22205E1"),
        ("22205E1KC3", "22205E1"),
        ("SKF 22228 CCK/C3W33", "22228"),
        ("1205 EKTN9", "1205E"),
        ("FAG 2303-TVH", "2303"),
        ("UC 206-18", "UC206"),
        ("UCFL205", "UC205"),
        ("PFI 6205-2RS C3", "6205"),
        ("C&U 6205", "6205"),
        ("6205 2RSH/C3", "6205"),
        ("ER10K", "ER-10K"),
        ("nice", "NICE"),
        ("7205C", "7205C"),
        ("7205 CD/P4A", "7205C"),
        ("NSK 7205CTYNDB", "7205C"),
        ("NSK 7205 AW", "7205A"),
        ("FAG 7314-B-MP", "7314B"),
    ],
)
def test_spellings_of_one_bearing(text: str, name: str) -> None:
    assert parse_bearing(text).text == name
    assert normalize_bearing(text) == name


@pytest.mark.parametrize(
    "text",
    [
        *("6299", "6205 ETN9", "6206EE", "bearing 3"),
        *("7205", "7205 BEP", "7205ACD", "7205A5", "7205/C3", "7205CE", "7314 BEP"),
        *("NJ205", "NU206", "NU205W", "NU208", "NU2205", "RNU205"),
        *("22220 EK", "22205 E", "22228-E1", "30206 J2/Q", "30204C", "32204"),
        *("1205", "1207 ETN9", "2303 E-2RS1TN9", "UC208", "UCX06"),
    ],
)
def test_unknown_designations_are_not_replaced_by_a_similar_bearing(text: str) -> None:
    with pytest.raises(UnknownBearingError, match="unknown bearing"):
        parse_bearing(text)
    assert normalize_bearing(f"{text}; SKF 6205") == f"{text}; 6205"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("ER16", "ER-16K"),
        ("SKF 7205 BEP", "7205A, 7205B, 7205C"),
        ("NU206", "NU206E"),
        ("NU205W", "NU205, NU205E"),
        ("22205 E", "22205E1"),
    ],
)
def test_an_unknown_design_names_those_of_the_same_size(text: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"the table has {known}. Another suffix is another internal design. Expected"):
        parse_bearing(text)


@pytest.mark.parametrize("text", ["1207", "22216", "30306", "NU208", "NJ305", "6299", "UC208", "Acme", "none", "UC"])
def test_no_bearing_of_another_size_or_type_is_suggested(text: str) -> None:
    with pytest.raises(ValueError, match=f"unknown bearing '{text}'. Expected a designation"):
        parse_bearing(text)


def test_a_misspelled_name_suggests_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"unknown bearing 'MAFAUDLA'; did you mean 'MAFAULDA'\? Expected"):
        parse_bearing("MAFAUDLA")


def test_several_designations_without_a_separator() -> None:
    with pytest.raises(ValueError, match=r"Separate bearings by ';'"):
        parse_bearing("6205, 6203")


@pytest.mark.parametrize(
    "text",
    [
        "9, 7.94, 39.04",
        "9, 7.94, 39.04, 0",
        "9.0 7.94 39.04 0",
        "n_elements=9, ball_diameter=7.94, pitch_diameter=39.04, contact_angle=0",
        "contact_angle=0 pitch_diameter=39.04 ball_diameter=7.94 n_elements=9",
        "n_balls: 9, ball_diameter_mm: 7.94, pitch_diameter_mm: 39.04",
    ],
)
def test_geometry(text: str) -> None:
    bearing = parse_bearing(text)
    assert bearing.geometry == BearingGeometry(9, 7.94, 39.04)
    assert bearing.orders == fault_orders(BearingGeometry(9, 7.94, 39.04))
    assert parse_bearing(bearing.text) == bearing


@pytest.mark.parametrize(
    "text",
    [
        "3.5848, 5.4152, 2.3567, 0.39828",
        "BPFO=3.5848 BPFI=5.4152 BSF=2.3567 FTF=0.39828",
        "ftf=0.39828, bsf=2.3567, bpfi=5.4152, bpfo=3.5848",
    ],
)
def test_orders(text: str) -> None:
    bearing = parse_bearing(text)
    orders = bearing.orders
    assert (orders.bpfo, orders.bpfi, orders.bsf, orders.ftf) == (3.5848, 5.4152, 2.3567, 0.39828)
    assert bearing.geometry is None
    assert parse_bearing(bearing.text) == bearing


def test_published_orders_with_two_digits_are_accepted() -> None:
    for geometry in BEARINGS.values():
        for race in ("inner", "outer"):
            orders = fault_orders(geometry, race)
            text = f"bpfo={orders.bpfo:.2f} bpfi={orders.bpfi:.2f} bsf={orders.bsf:.2f} ftf={orders.ftf:.2f}"
            assert parse_bearing(text).orders.bpfo == round(orders.bpfo, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a designation"),
        (" ; ", "expected a designation"),
        ("n_elements=9, ball_diameter=7.94", "has no pitch_diameter"),
        ("n_elements=9.5, ball_diameter=7.94, pitch_diameter=39", "n_elements is 9.5, expected an integer"),
        ("9, 41, 40", "below the pitch diameter"),
        ("9, 41, 40, 0", "below the pitch diameter"),
        ("9, 7.94, nan", "pitch_diameter_mm is nan"),
        ("9, 7.94, 39, 95", "contact_angle_deg is 95"),
        ("25, 7.94, 39", "do not fit on a pitch circle"),
        ("6205 6203 6204", "do not fit"),
        ("n_elements=9, bpfo=3", "has the fields n_elements, bpfo"),
        (
            "n_elements=nine, ball_diameter=1, pitch_diameter=9",
            "n_elements of the bearing is 'nine', expected a number",
        ),
        ("bpfo=3.585, bpfi=5.415, bsf=2.357", "has no ftf"),
        ("bpfo=5.415, bpfi=3.585, bsf=2.357, ftf=0.398", "expected bpfo < bpfi"),
        ("bpfo=3.585, bpfi=5.9, bsf=2.357, ftf=0.398", "integer sum"),
        ("bpfo=3.585, bpfi=5.415, bsf=2.357, ftf=0.3", "ftf is 0.3, expected about 0.398"),
        ("bpfo=3.585, bpfi=5.415, bsf=4.7135, ftf=0.398", "bsf is 4.7135, .* was 2 x BSF given"),
        ("bpfo=3.585, bpfi=5.415, bsf=inf, ftf=0.398", "bsf is inf"),
    ],
)
def test_malformed_bearings(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_bearings(text)
    assert not isinstance(caught.value, UnknownBearingError)


def test_several_bearings() -> None:
    de, fe = parse_bearings("SKF 6205-2RS; 8, 6.75, 28.5;")
    assert de.text == "6205"
    assert fe.geometry == BearingGeometry(8, 6.75, 28.5)
    with pytest.raises(ValueError, match="expected one bearing, got 2"):
        parse_bearing("6205; 6203")


def test_rotating_outer_race_changes_the_cage_only() -> None:
    inner, outer = parse_bearing("6205"), parse_bearing("6205", rotating_race="outer")
    assert outer.rotating_race == "outer"
    assert (outer.orders.bpfo, outer.orders.bpfi, outer.orders.bsf) == (
        inner.orders.bpfo,
        inner.orders.bpfi,
        inner.orders.bsf,
    )
    assert outer.orders.ftf == pytest.approx(1 - inner.orders.ftf)
    # elements pass a point of the stationary inner race at the rate of the cage
    assert outer.orders.bpfi == pytest.approx(9 * outer.orders.ftf)
    with pytest.raises(ValueError, match="unknown rotating_race 'middle'"):
        parse_bearing("6205", rotating_race="middle")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("ftf", "stated", "race"), [(0.398, "inner", "inner"), (0.398, "outer", "outer"), (0.602, "inner", "outer")]
)
def test_orders_keep_the_rotating_race(ftf: float, stated: RotatingRace, race: str) -> None:
    """With a rotating outer race, the cage turns with more than half of its speed."""
    assert parse_bearing(f"bpfo=3.585 bpfi=5.415 bsf=2.357 ftf={ftf}", stated).rotating_race == race


def test_numpy_scalars() -> None:
    geometry = BearingGeometry(np.int64(9), np.float32(7.94), np.float64(39.04), np.int32(0))  # pyright: ignore[reportArgumentType]
    assert [type(value) for value in vars(geometry).values()] == [int, float, float, float]
    bearing = bearing_from_geometry(geometry)
    assert parse_bearing(bearing.text).geometry == geometry
    assert type(bearing.orders.bpfo) is float
