"""Simulated vibration of machines on rolling bearings, with the faults of `ROLLING_CLASSES`.

A machine has one bearing, a load zone, its own share of each resonance in the impacts, and other rotating parts whose
lines are unrelated to the bearing: a gear stage, a belt drive, an electric motor, a fan or pump, and a neighboring
bearing. These are the same for all classes, so a healthy machine can have strong lines of the shaft and of other parts.
Its races and elements are not perfect either: their waviness and dents write faint lines at the fault frequencies of
every bearing (Tandon and Choudhury 1999, Tribology International 32, 469-480), so that a line alone is not a fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whirl.data.synthesis import Machine, RecordingSynthesizer, Signal, make_generator
from whirl.physics.bearings import Bearing, bearing_from_geometry
from whirl.physics.rolling_bearing import BearingGeometry, RotatingRace

FULL_LOAD_N = 3_000.0
LOAD_RANGE = (0.25, 1.0)

_PARTS_KEY, _BEARING_KEY = 3, 4  # first words of a generator's key
_NOISE = 0.03  # RMS of the background noise, before a lognormal factor
_MIN_IMPACT, _MAX_IMPACT = 0.005, 0.5  # strength of the impacts at severity 0 and 1
_IMPERFECTION = 0.015  # median strength of the impacts of healthy races and elements
PARTS = ("inner_race", "outer_race", "ball")
_UNRELATED_SHARE = 0.04  # relative distance of a neighbor's impacts from lines of the bearing


@dataclass(frozen=True)
class Surroundings:
    """Properties of one machine beside its bearing, in orders of the shaft; a level of 0 means that the part is absent.

    Attributes:
        impact_shares: share of each mode in the response to an impact, `[3]`.
        imperfections: strength of the impacts of each undamaged part, in the order of `PARTS`, `[3]`.
        load_zone: load distribution factor: 0.5 loads half of the circumference, 1 and more all of it.
        shaft_level: factor of the shaft lines.
        teeth: teeth of the gear on the shaft and of the other gear.
        gear_level: amplitude of the meshing tone.
        belt_order: revolutions of the belt per revolution of the shaft.
        driven_order: revolutions of the driven shaft per revolution of the shaft.
        belt_level: amplitude of the lines of the belt.
        motor_level: amplitude of the lines at twice the mains frequency.
        blades: lobes or blades whose passage modulates the flow noise.
        flow_level: RMS of the flow noise.
        neighbor_order: impacts of a neighboring bearing per revolution of the shaft.
        neighbor_level: strength of those impacts.
    """

    impact_shares: NDArray[np.float64]
    imperfections: NDArray[np.float64]
    load_zone: float
    shaft_level: float
    teeth: tuple[int, int]
    gear_level: float
    belt_order: float
    driven_order: float
    belt_level: float
    motor_level: float
    blades: int
    flow_level: float
    neighbor_order: float
    neighbor_level: float


@dataclass(frozen=True)
class RollingMachine:
    """One machine on rolling bearings: its bearing and its other parts."""

    bearing: Bearing
    surroundings: Surroundings


def draw_rolling_machine(
    seed: int, machine: Machine, bearing: Bearing | None, rotating_race: RotatingRace
) -> RollingMachine:
    """Draw the parts of a machine, which depend on seed and machine only.

    Args:
        seed: seed of the simulation.
        machine: the machine.
        bearing: its bearing; None draws a random geometry.
        rotating_race: the race that rotates with the shaft, for a random geometry.
    """
    if bearing is None:
        bearing = bearing_from_geometry(draw_geometry(make_generator(seed, _BEARING_KEY, machine.index)), rotating_race)
    rng = make_generator(seed, _PARTS_KEY, machine.index)

    def level(probability: float, median: float) -> float:
        strength = float(median * rng.lognormal(0, 0.5))
        return strength if rng.uniform() < probability else 0.0

    pinion = int(rng.integers(17, 41))
    return RollingMachine(
        bearing,
        Surroundings(
            impact_shares=rng.uniform((0.1, 0.5, 0.0), 1),
            imperfections=_IMPERFECTION * rng.lognormal(0, 0.5, len(PARTS)),
            load_zone=float(rng.uniform(0.45, 1.2)),
            shaft_level=float(np.clip(rng.lognormal(0, 0.7), 0.3, 3)),
            teeth=(pinion, int(pinion * rng.uniform(1.2, 4)) | 1),
            gear_level=level(0.4, 0.05),
            belt_order=float(rng.uniform(0.15, 0.45)),
            driven_order=float(rng.uniform(0.4, 1.9)),
            belt_level=level(0.35, 0.03),
            motor_level=level(0.6, 0.03),
            blades=int(rng.integers(1, 8)),
            flow_level=level(0.4, 0.02),
            neighbor_order=_unrelated_order(rng, bearing),
            neighbor_level=level(0.12, 0.03),
        ),
    )


def draw_geometry(rng: np.random.Generator) -> BearingGeometry:
    """Draw the geometry of a ball or roller bearing: 6 to 24 elements, mostly without a contact angle.

    Example:
        >>> draw_geometry(np.random.default_rng(0)).n_elements
        8
    """
    ratio = rng.uniform(0.12, 0.31)
    filling = rng.uniform(0.55, 0.92)  # 0.6 for deep-groove bearings, more for rollers and angular contact
    n_elements = max(6, int(filling * math.pi / math.asin(ratio)))
    angle_deg = rng.choice((0.0, 15.0, 25.0, 40.0), p=(0.7, 0.14, 0.08, 0.08))
    pitch_mm = rng.uniform(25, 160)
    return BearingGeometry(n_elements, ratio * pitch_mm, pitch_mm, float(angle_deg))


def _unrelated_order(rng: np.random.Generator, bearing: Bearing) -> float:
    """An order whose first harmonics are not those of the bearing."""
    orders = bearing.orders
    lines = [harmonic * line for line in (orders.bpfi, orders.bpfo, 2 * orders.bsf) for harmonic in (1, 2, 3)]
    candidates = rng.uniform(1.5, 12, 64)
    harmonics = candidates[:, None, None] * np.array([1, 2, 3])[:, None]
    distance = np.abs(harmonics / np.array(lines) - 1).min(axis=(1, 2))
    clear = candidates[distance > _UNRELATED_SHARE]
    return float(clear[0] if len(clear) else candidates[distance.argmax()])


def rolling_vibration(synth: RecordingSynthesizer, label: str, machine: RollingMachine) -> Signal:
    """Synthesize the vibration of a machine on a rolling bearing; kinematics and levels go into the ground truth."""
    orders = machine.bearing.orders
    synth.truth |= {"ftf": orders.ftf, "bpfo": orders.bpfo, "bpfi": orders.bpfi, "bsf": orders.bsf}
    vibration = _shaft(synth, machine.surroundings)
    vibration += np.float32(_NOISE * synth.jitter(0.3)) * synth.noise(synth.path)
    for part in (_gear, _belt, _motor, _flow, _neighbor):
        vibration += part(synth, machine.surroundings)
    slip = float(synth.rng.uniform(-0.003, 0.015))
    synth.truth["slip"] = slip
    undamaged = [_impacts(synth, part, machine, slip) for part in PARTS]
    strengths = machine.surroundings.imperfections
    times_s, loads = np.concatenate([times_s for times_s, _ in undamaged]), [load for _, load in undamaged]
    forces = np.concatenate([strength * load for strength, load in zip(strengths, loads, strict=True)])
    shares = machine.surroundings.impact_shares.tolist()
    vibration += synth.impacts(times_s, forces, shares)
    if label == "healthy":
        return vibration
    times_s, load = _impacts(synth, label, machine, slip)
    strength = (_MIN_IMPACT + (_MAX_IMPACT - _MIN_IMPACT) * synth.severity) * synth.jitter(0.15)
    impacts = synth.impacts(times_s, strength * load, shares)
    synth.truth["fault_db"] = float(20 * np.log10(max(_rms(impacts), 1e-12) / _rms(vibration)))
    return vibration + impacts


def _shaft(synth: RecordingSynthesizer, parts: Surroundings) -> Signal:
    v, levels = synth.speed, parts.shaft_level * synth.machine.residual_levels
    vibration = synth.tone(1, 0.06 * levels[0] * v**2) + synth.tone(2, 0.03 * levels[1] * v)
    return vibration + synth.tone(3, 0.015 * levels[2]) + synth.tone(4, 0.008 * levels[0])


def _gear(synth: RecordingSynthesizer, parts: Surroundings) -> Signal:
    """Meshing tones, modulated once per revolution of either gear."""
    pinion, wheel = parts.teeth
    if parts.gear_level == 0:
        return np.zeros(synth.n_samples, np.float32)
    mesh = synth.tones({harmonic * pinion: parts.gear_level / harmonic for harmonic in (1, 2, 3)})
    depth = synth.rng.uniform(0, 0.4, 2)
    modulation = synth.tone(1, depth[0]) + synth.tone(pinion / wheel, depth[1])
    mesh += mesh * modulation
    return mesh


def _belt(synth: RecordingSynthesizer, parts: Surroundings) -> Signal:
    """Harmonics of the belt and of the driven shaft."""
    if parts.belt_level == 0:
        return np.zeros(synth.n_samples, np.float32)
    belt = {harmonic * parts.belt_order: parts.belt_level / harmonic for harmonic in (1, 2, 3, 4)}
    return synth.tones(belt | {parts.driven_order: parts.belt_level, 2 * parts.driven_order: 0.5 * parts.belt_level})


def _motor(synth: RecordingSynthesizer, parts: Surroundings) -> Signal:
    """Lines at even multiples of the mains frequency, the first modulated once per revolution."""
    if parts.motor_level == 0:
        return np.zeros(synth.n_samples, np.float32)
    mains = synth.machine.mains_hz * synth.time_s
    first = synth.tone(2, parts.motor_level, cycles=mains) * (1 + synth.tone(1, synth.rng.uniform(0, 0.3)))
    return first + synth.tone(4, 0.4 * parts.motor_level, cycles=mains)


def _flow(synth: RecordingSynthesizer, parts: Surroundings) -> Signal:
    """Broadband noise, modulated by the passage of blades."""
    if parts.flow_level == 0:
        return np.zeros(synth.n_samples, np.float32)
    passage = 1 + synth.tone(parts.blades, synth.rng.uniform(0.1, 0.6)) + synth.tone(1, synth.rng.uniform(0, 0.3))
    return np.float32(parts.flow_level) * passage * synth.noise(synth.path)


def _neighbor(synth: RecordingSynthesizer, parts: Surroundings) -> Signal:
    """Impacts of another bearing, at its own fault order."""
    if parts.neighbor_level == 0:
        return np.zeros(synth.n_samples, np.float32)
    turns = _impact_turns(synth, parts.neighbor_order)
    times_s = np.interp(turns, synth.cycles, synth.time_s)
    return synth.impacts(times_s, np.full(len(turns), parts.neighbor_level), parts.impact_shares[::-1].tolist())


def _impacts(
    synth: RecordingSynthesizer, part: str, machine: RollingMachine, slip: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times of the impacts of a local defect, nearly periodic, and the load at the defect at these times.

    A defect on the rotating race passes the load zone once per revolution, one on an element once per revolution of the
    cage; one on the stationary race stays where it is.
    """
    orders = machine.bearing.orders
    order = {"inner_race": orders.bpfi, "outer_race": orders.bpfo, "ball": 2 * orders.bsf}[part]
    turns = _impact_turns(synth, order * (1 - slip))
    zone = machine.surroundings.load_zone
    if part == "ball":
        load = 0.8 * load_distribution(orders.ftf * turns, zone) * np.where(np.arange(len(turns)) % 2, 0.7, 1)
    elif part.startswith(machine.bearing.rotating_race):
        load = load_distribution(turns, zone)
    else:
        load = np.ones(len(turns))
    return np.interp(turns, synth.cycles, synth.time_s), load


def _impact_turns(synth: RecordingSynthesizer, order: float) -> NDArray[np.float64]:
    """Shaft revolutions at which impacts of an order occur, with white and accumulating jitter of their spacing."""
    first, last = synth.cycles[0], synth.cycles[-1]
    n = int((last - first) * order) + 1
    white, walk = synth.rng.uniform(0.005, 0.015), synth.rng.uniform(0.001, 0.003)
    jitter = white * synth.rng.standard_normal(n) + walk * np.cumsum(synth.rng.standard_normal(n))
    turns = first + (np.arange(n) + synth.rng.uniform() + jitter) / order
    return turns[(turns > first) & (turns < last)]


def load_distribution(turns: NDArray[np.float64], zone: float) -> NDArray[np.float64]:
    """Compute the load at an angle from the load line, relative to the maximum.

    `(1 - (1 - cos psi) / (2 zone))^1.5`, and 0 outside the load zone (Harris and Kotzalas 2006, chapter 7, for balls).

    Args:
        turns: angle in revolutions.
        zone: load distribution factor, > 0: 0.5 loads half of the circumference.

    Example:
        >>> load_distribution(np.array([0.0, 0.125, 0.25, 0.5]), zone=0.5).round(3)
        array([1.   , 0.595, 0.   , 0.   ])
    """
    return np.clip(1 - (1 - np.cos(2 * np.pi * turns)) / (2 * zone), 0, None) ** 1.5


def _rms(signal: Signal) -> float:
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))
