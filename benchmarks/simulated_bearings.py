"""Untrained diagnosis of simulated bearings and of noise: accuracy by depth, false alarms, and sampling rates.

Why: measured recordings are of few bearings. Here the truth is known for any geometry and depth, and false alarms can
be counted in numbers that measured healthy machines do not give.

- `clear_faults`: fraction of faults of bearings of random geometry that the rule names correctly, where the depth of
  their own lines is above -10 dB. `by_depth` has the fraction in steps of depth, with the number of recordings.
- `family_net_clear_faults`: the same by the pretrained family network.
- `noise_alarms`: fraction of recordings of white, pink and band-limited noise with a faulty verdict.
- `healthy_alarms`: the same of simulated healthy machines with strong lines of the shaft and other rotating parts.
- `stated_rate_ratio`: fraction of combs of noise that pass the stated false-alarm rate alone, relative to that rate.
- `by_speed_error`, `by_speed_change`: fraction of clear faults named correctly, and as another part, where the given
  speed is wrong, and where the speed rises during the recording.
- `rate_spread_db`: largest difference of significance between sampling rates of 24, 48.8 and 97.7 kHz, for a fault
  whose impacts excite a resonance at 2.7 kHz.

    python benchmarks/simulated_bearings.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from _harness import configure, make_parser, print_results

from whirl._parallel import map_in_threads, one_torch_thread
from whirl.data import Recording
from whirl.data.simulation import simulate
from whirl.diagnosis.family_features import PARTS, feature_rows, strongest_families
from whirl.diagnosis.family_net import FamilyNet
from whirl.diagnosis.results import RecordingDiagnosis
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.physics.faults import ROLLING_CLASSES

FAULTY = (*PARTS, "cage")
GEOMETRIES = 30
SPEED_ERRORS = (-0.03, -0.02, -0.015, -0.01, 0, 0.01, 0.015, 0.02, 0.03)
SPEED_CHANGES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
CLEAR_DB = -10
DEPTH_EDGES_DB = (-40, -24, -20, -16, -14, -12, -10, 0, 20)
BEARINGS = ("6205", "6203", "7, 9, 36", "14, 12.5, 95.0, 15", "NU205")
GOALS = {
    "clear_faults": ">= 0.95",
    "noise_alarms": "<= 0.01",
    "healthy_alarms": "<= 0.01",
    "stated_rate_ratio": "<= 1.3",
    "rate_spread_db": "<= 1",
}


def diagnose(recordings: Sequence[Recording]) -> list[RecordingDiagnosis]:
    """Diagnose recordings in threads."""
    diagnoser = SpectralDiagnoser()
    with one_torch_thread():
        return list(map_in_threads(lambda recording: diagnoser.diagnose([recording])[0], recordings))


# -- faults of random geometry -------------------------------------------------------------------------------


def faults(seed: int) -> list[Recording]:
    """Return recordings of bearings of random geometry, each with each fault at severities from none to full."""
    classes = ROLLING_CLASSES[1:]
    return simulate(
        GEOMETRIES, 6, classes, seed, 25_600, 128_000, (600, 3600), (0, 1), bearing="random", snr_db_range=(5, 30)
    )


def own_depth_db(recording: Recording, diagnosis: RecordingDiagnosis) -> float | None:
    """Return the depth of the lines of the recording's own fault; None if they were not evaluated."""
    own = next((family for family in strongest_families(diagnosis).values() if family.part == recording.label), None)
    return own.depth_db if own is not None and own.is_judged else None


def accuracy_by_depth(recordings: Sequence[Recording], found: Sequence[RecordingDiagnosis]) -> dict[str, float | dict]:
    """Return the fraction of faults that are named correctly, above -10 dB and in steps of depth."""
    net = FamilyNet.pretrained()
    by_net = net.predict_proba(*feature_rows(found)).argmax(axis=1)
    depth, by_rule, net_right = [], [], []
    for recording, diagnosis, choice in zip(recordings, found, by_net, strict=True):
        own_depth = own_depth_db(recording, diagnosis)
        if own_depth is not None:
            depth.append(own_depth)
            by_rule.append(diagnosis.verdict == recording.label)
            net_right.append(choice == PARTS.index(str(recording.label)))
    depths, rule, learned = np.array(depth), np.array(by_rule), np.array(net_right)
    step = np.digitize(depths, DEPTH_EDGES_DB)
    curve = {
        f"{DEPTH_EDGES_DB[k - 1]} to {DEPTH_EDGES_DB[k]} dB": [
            round(float(rule[step == k].mean()), 3),
            round(float(learned[step == k].mean()), 3),
            int((step == k).sum()),
        ]
        for k in range(1, len(DEPTH_EDGES_DB))
        if (step == k).any()
    }
    clear = depths > CLEAR_DB
    return {
        "clear_faults": float(rule[clear].mean()),
        "family_net_clear_faults": float(learned[clear].mean()),
        "n_clear": int(clear.sum()),
        "n_hidden": len(recordings) - len(depths),
        "curve": curve,
    }


# -- wrong and varying speeds --------------------------------------------------------------------------------


def named(recordings: Sequence[Recording], change: Callable[[Recording], Recording]) -> list[float]:
    """Return the fractions of changed recordings whose fault is named correctly, and as another part."""
    found = [diagnosis.verdict for diagnosis in diagnose([change(recording) for recording in recordings])]
    right = np.array([verdict == recording.label for verdict, recording in zip(found, recordings, strict=True)])
    faulty = np.array([verdict in FAULTY for verdict in found])
    return [round(float(right.mean()), 3), round(float((faulty & ~right).mean()), 3)]


def given_wrong(share: float) -> Callable[[Recording], Recording]:
    """Return a function that replaces the speed by one that is higher by a share."""
    return lambda recording: replace(recording, rpm=(recording.rpm or 0) * (1 + share))


def sped_up(share: float) -> Callable[[Recording], Recording]:
    """Return a function that plays a recording ever faster; the speed rises by a share and has the same mean."""

    def change(recording: Recording) -> Recording:
        n = recording.signal.shape[-1]
        place = np.cumsum(1 + share * (np.arange(n) / n - 0.5))
        place *= (n - 1) / place[-1]
        signal = np.stack([np.interp(place, np.arange(n), channel) for channel in recording.signal])
        return replace(recording, signal=signal.astype(np.float32))

    return change


def by_speed(recordings: Sequence[Recording]) -> dict[str, dict[str, list[float]]]:
    """Return what is named at wrong and varying speeds."""
    return {
        "by_speed_error": {f"{share:+.1%}": named(recordings, given_wrong(share)) for share in SPEED_ERRORS},
        "by_speed_change": {f"{share:.1%}": named(recordings, sped_up(share)) for share in SPEED_CHANGES},
    }


# -- false alarms --------------------------------------------------------------------------------------------


def noise(n: int, seed: int) -> Iterator[Recording]:
    """Yield white, pink and band-limited noise with speeds and bearings of all kinds."""
    for index in range(n):
        rng = np.random.default_rng((seed, index))
        rate_hz = float(rng.choice([12_000, 25_600, 48_000]))
        n_samples = int(rate_hz * rng.uniform(2, 10))
        spectrum = np.fft.rfft(rng.normal(size=n_samples))
        frequency_hz = np.fft.rfftfreq(n_samples, 1 / rate_hz)
        if index % 3 == 1:
            spectrum /= np.sqrt(np.maximum(frequency_hz, 1))
        elif index % 3 == 2:
            low_hz = rng.uniform(100, rate_hz / 6)
            spectrum *= (frequency_hz > low_hz) & (frequency_hz < low_hz * rng.uniform(1.5, 3))
        signal = np.fft.irfft(spectrum, n_samples).astype(np.float32)
        rpm, bearing = float(rng.uniform(600, 3600)), str(rng.choice(BEARINGS))
        yield Recording(signal, rate_hz, rpm=rpm, bearing=bearing, source=f"noise {index}")


def healthy(n: int, seed: int) -> list[Recording]:
    """Return healthy machines of random bearings."""
    return simulate(n, 1, ["healthy"], seed, 25_600, 128_000, (600, 3600), bearing="random", snr_db_range=(5, 30))


def alarm_rate(found: Sequence[RecordingDiagnosis]) -> float:
    """Return the fraction of faulty verdicts."""
    return float(np.mean([diagnosis.verdict in FAULTY for diagnosis in found]))


def passing_rate(found: Sequence[RecordingDiagnosis], rate: float) -> float:
    """Return the fraction of recordings in which a family is as significant as the stated false-alarm rate demands."""
    chances = [
        [each.false_alarm_probability or 1.0 for each in diagnosis.families.values() if each.part in PARTS]
        for diagnosis in found
    ]
    return float(np.mean([min(each, default=1.0) <= rate for each in chances]))


# -- sampling rates ------------------------------------------------------------------------------------------


def ringing(rate_hz: float, seed: int) -> Recording:
    """Return impacts of an outer race that excite a resonance at 2.7 kHz, in white noise of the same density."""
    rng = np.random.default_rng(seed)
    rpm, duration_s = 1800.0, 10.0
    times_s = np.arange(0.05, duration_s - 0.05, 1 / (3.5848 * rpm / 60))
    times_s = times_s + np.cumsum(rng.normal(0, 2e-5, len(times_s)))
    t = np.arange(int(duration_s * rate_hz)) / rate_hz
    signal = np.random.default_rng(seed + 1).normal(0, 0.2 * np.sqrt(rate_hz / 24_000), len(t))
    length = int(0.01 * rate_hz)
    for time_s in times_s:
        start = int(np.ceil(time_s * rate_hz))
        since_s = t[start : start + length] - time_s
        signal[start : start + length] += np.sin(2 * np.pi * 2700 * since_s) * np.exp(-since_s / 1.5e-3)
    return Recording(signal, rate_hz, rpm=rpm, bearing="6205")


def rate_spread_db(seeds: Sequence[int]) -> float:
    """Return the largest difference of the mean significance between sampling rates."""
    levels = []
    for rate_hz in (24_000, 48_800, 97_700):
        found = diagnose([ringing(rate_hz, seed) for seed in seeds])
        levels.append(np.mean([diagnosis.families["BPFO"].significance_db or 0.0 for diagnosis in found]))
    return float(np.ptp(levels))


def main() -> None:
    """Measure, and print the results."""
    parser = make_parser(__doc__)
    parser.add_argument("--noise", type=int, default=1000, help="recordings of noise (default %(default)s)")
    parser.add_argument("--healthy", type=int, default=200, help="healthy machines (default %(default)s)")
    parser.add_argument("--seed", type=int, default=2026, help="seed, not that of pretraining (default %(default)s)")
    arguments = parser.parse_args()
    configure(1)
    recordings = faults(arguments.seed)
    found = diagnose(recordings)
    by_depth = accuracy_by_depth(recordings, found)
    depths = [own_depth_db(recording, each) for recording, each in zip(recordings, found, strict=True)]
    clear = [each for each, depth in zip(recordings, depths, strict=True) if depth is not None and depth > CLEAR_DB]
    of_noise = diagnose(list(noise(arguments.noise, arguments.seed)))
    rate = SpectralDiagnoser().thresholds.false_alarm_rate
    ratios = {
        "clear_faults": by_depth.pop("clear_faults"),
        "family_net_clear_faults": by_depth.pop("family_net_clear_faults"),
        "noise_alarms": alarm_rate(of_noise),
        "healthy_alarms": alarm_rate(diagnose(healthy(arguments.healthy, arguments.seed))),
        "stated_rate_ratio": passing_rate(of_noise, rate) / rate,
        "rate_spread_db": rate_spread_db(range(5)),
    }
    print_results(
        ratios, GOALS, by_depth=by_depth, **by_speed(clear), n_noise=arguments.noise, n_healthy=arguments.healthy
    )


if __name__ == "__main__":
    main()
