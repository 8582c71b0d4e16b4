"""What makes recordings suspicious: checks of measurements that are small enough to keep for every recording."""

from __future__ import annotations

import hashlib
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np

from whirl.data.quality import count_clipped, longest_run, quantisation_step
from whirl.data.recording import Recording

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

# The default window holds so many turns of the shaft: fewer do not tell 0.45 X from 0.5 X.
MIN_REVOLUTIONS = 16
# Stated speeds differ by as much through rounding, and through the drift of a motor under load.
_RPM_TOLERANCE = 0.01
# A signal that stays put for this share of the recording was not measured.
_STUCK_SHARE = 0.1
# Values closer than this are one setting of the recorder.
_SAME_SETTING = 0.01
# A separation of the classes this improbable is no chance. Settings hang together with specimens, of which there
# are few, so that hardly anything about them is improbable.
_CHANCE = 1e-3
_CHANCE_OF_SETTING = 0.1
# Samples that are looked at to find the quantisation step.
_STEP_SAMPLES = 2**17

# Names that a message lists before it only counts.
_SHOWN = 5

_STANDARDISE = "keep windows standardised (the default)"


@dataclass(frozen=True)
class Finding:
    """Something about the recordings that a user should know.

    Attributes:
        severity: `error` (training fails or misleads), `warning`, or `info`.
        subjects: names of the recordings or classes concerned.
        message: what was found.
        remedy: what to do about it.
    """

    severity: Severity
    subjects: tuple[str, ...]
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{_wrap(f'{self.severity:<9}', self.message)}\n{_wrap(' ' * 9 + '-> ', self.remedy)}"


def run_checks(profiles: list[Profile]) -> list[Finding]:
    """All that the checks find in a set of recordings."""
    return [finding for check in _CHECKS for finding in check(profiles)]


# ------------------------------------------------------------------------------------------------- profiles


@dataclass(frozen=True)
class _Channel:
    """What is kept of one channel."""

    n_bad: int  # samples that are NaN or infinite; where there are any the rest is not measured
    first_bad: int = -1
    mean: float = 0.0
    rms: float = 0.0  # about the mean
    step: float | None = None
    n_clipped: int = 0
    extreme: float = 0.0  # largest absolute value
    stuck_s: float = 0.0  # longest stretch of equal samples
    digest: bytes = b""


@dataclass(frozen=True)
class Profile:
    """What is kept of one recording once its samples are gone."""

    name: str
    label: str
    specimen: str | None
    duration_s: float
    n_revolutions: float | None
    sampling_rate_hz: float
    unit: str
    rpm: float | None
    rpm_in_file: float | None
    load: float | None
    load_unit: str
    channels: dict[str, _Channel]


def profile_of(recording: Recording) -> Profile:
    """Measure a recording; its samples can be let go afterwards."""
    stored = recording.metadata.get("rpm_in_file", recording.rpm)
    return Profile(
        name=Path(recording.source).name or "recording",
        label=recording.label or "",
        specimen=recording.specimen,
        duration_s=recording.duration_s,
        n_revolutions=recording.n_revolutions,
        sampling_rate_hz=recording.sampling_rate_hz,
        unit=recording.unit,
        rpm=recording.rpm,
        rpm_in_file=stored if stored is None or isinstance(stored, (int, float)) else recording.rpm,
        load=recording.load,
        load_unit=recording.load_unit,
        channels={
            name: _measure(samples, recording.sampling_rate_hz)
            for name, samples in zip(recording.channels, recording.signal, strict=True)
        },
    )


def _measure(samples: np.ndarray, sampling_rate_hz: float) -> _Channel:
    """Measure one channel `[N]`."""
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        return _Channel(len(bad), int(bad[0]))
    step = quantisation_step(samples[:_STEP_SAMPLES])
    return _Channel(
        n_bad=0,
        mean=float(samples.mean(dtype=np.float64)),
        rms=float(samples.std(dtype=np.float64)) if np.ptp(samples) else 0.0,  # exactly
        step=step,
        n_clipped=count_clipped(samples, step),
        extreme=float(np.abs(samples).max()),
        stuck_s=longest_run(samples) / sampling_rate_hz,
        digest=hashlib.blake2b(np.ascontiguousarray(samples).data, digest_size=16).digest(),
    )


# ------------------------------------------------------------------------------------------------- checks: samples


def _bad_samples(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _of_channels(
        profiles,
        lambda _, channel: f"({channel.n_bad}, the first at {channel.first_bad})" if channel.n_bad else None,
        "error",
        "NaN or infinite samples",
        "mend the files or leave them out",
    )


def _constant(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _of_channels(
        profiles,
        lambda _, channel: "" if _is_dead(channel) else None,
        "error",
        "constant channels",
        "leave the channel out with --channels, or the recordings",
    )


def _is_dead(channel: _Channel) -> bool:
    return channel.n_bad == 0 and channel.rms == 0


def _stuck(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _of_channels(
        profiles,
        lambda profile, channel: (
            f"{channel.stuck_s:.3g} s"
            if channel.rms > 0 and channel.stuck_s > _STUCK_SHARE * profile.duration_s
            else None
        ),
        "warning",
        "signal stands still",
        "cut the dropout away, or leave the recordings out",
    )


def _clipped(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _of_channels(
        profiles,
        lambda profile, channel: (
            f"at {channel.extreme:.3g} {profile.unit}".rstrip() + f" ({channel.n_clipped} samples)"
            if channel.rms > 0 and channel.n_clipped
            else None
        ),
        "warning",
        "clipped at full scale",
        "record again with a larger range, or leave the recordings out",
    )


def _offset(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _of_channels(
        profiles,
        lambda _, channel: f"{abs(channel.mean) / channel.rms:.1f}" if 0 < channel.rms < abs(channel.mean) else None,
        "warning",
        "DC offset larger than the signal (mean in multiples of the RMS about it)",
        f"the offset may tell one recording from another: {_STANDARDISE}, or remove the mean",
    )


def _duplicates(profiles: list[Profile]) -> Iterator[Finding]:
    channels = [
        (profile, name, channel.digest)
        for profile in profiles
        for name, channel in profile.channels.items()
        if channel.digest and not _is_dead(channel)
    ]
    for same in group_by(channels, lambda item: item[2]).values():
        if len(same) > 1:
            contradict = len({profile.label for profile, *_ in same}) > 1
            yield Finding(
                "error" if contradict else "warning",
                dedupe(profile.name for profile, *_ in same),
                f"the same signal{' with different labels' if contradict else ''}: "
                + _listed(f"{profile.name} {name}" for profile, name, _ in same),
                "keep one of them",
            )


# ------------------------------------------------------------------------------------------------- checks: facts


def _unknown(profiles: list[Profile]) -> Iterator[Finding]:
    for what, is_missing, remedy in (
        ("label", lambda p: not p.label, "training needs one for each: name it in manifest.csv"),
        ("specimen", lambda p: p.specimen is None, "add a specimen column, or split with --split recording"),
        ("shaft speed", lambda p: p.rpm is None, "add an rpm column: windows and fault orders need it"),
    ):
        yield from _of_recordings(filter(is_missing, profiles), "warning", f"no {what} known", remedy)


def _speed_in_file(profiles: list[Profile]) -> Iterator[Finding]:
    known = [profile for profile in profiles if profile.rpm is not None]
    yield from _of_recordings(
        (profile for profile in known if profile.rpm_in_file is None),
        "info",
        "shaft speed is not in the file but nominal",
        "measure it where fault orders matter: slip shifts them",
    )
    for profile in known:
        stored, rpm = profile.rpm_in_file, profile.rpm or 0.0
        if stored is not None and abs(stored - rpm) > _RPM_TOLERANCE * rpm:
            yield Finding(
                "warning",
                (profile.name,),
                f"{profile.name} is taken to turn at {rpm:g} rpm, the file says {stored:g}",
                "make sure which one the spectrum shows",
            )


def _too_short(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _of_recordings(
        (p for p in profiles if p.n_revolutions is not None and p.n_revolutions < MIN_REVOLUTIONS),
        "warning",
        f"shorter than a default window of {MIN_REVOLUTIONS} revolutions",
        "record longer, or choose a shorter --window",
    )


def _classes(profiles: list[Profile]) -> Iterator[Finding]:
    by_label = group_by((profile for profile in profiles if profile.label), lambda profile: profile.label)
    if len(by_label) == 1:
        yield Finding("error", tuple(by_label), f"only one class: {next(iter(by_label))}", "add another")
    single = []
    for label, members in by_label.items():
        specimens = {profile.specimen for profile in members}
        if len(specimens) == 1 and None not in specimens:
            single.append(label)
    if single:
        yield Finding(
            "warning",
            tuple(single),
            f"one specimen only, cannot be split by specimen: {', '.join(single)}",
            "add recordings of another specimen, leave the class out with --classes, or use --split time "
            "--allow-leakage, which stamps the report",
        )


def _mixtures(profiles: list[Profile]) -> Iterator[Finding]:
    shared = ",".join(name for name in _all_channels(profiles) if all(name in p.channels for p in profiles))
    for what, value_of, remedy in (
        ("units", lambda p: p.unit or "unknown", "convert the files to one unit, or name it in manifest.csv"),
        ("channels", channel_names, f"keep what all have: --channels {shared}" if shared else "train on one set only"),
    ):
        counts = Counter(map(value_of, profiles))
        if len(counts) > 1:
            found = ", ".join(f"{value} ({n})" for value, n in counts.most_common())
            yield Finding("warning", tuple(counts), f"different {what}: {found}", remedy)


def channel_names(profile: Profile) -> str:
    """The names of a recording's channels as one text."""
    return " ".join(profile.channels)


# ------------------------------------------------------------------------------------------------- checks: giveaways


def _recorder_settings(profiles: list[Profile]) -> Iterator[Finding]:
    """Settings of the recorder that only one class has."""
    unit = next((profile.unit for profile in profiles if profile.unit), "")
    yield from _setting_leaks_label(
        [(profile, profile.sampling_rate_hz) for profile in profiles],
        "sampling rate",
        "Hz",
        "bring all to one rate and one band (training resamples); the band of the anti-aliasing filter stays a trace",
    )
    for name in _all_channels(profiles):
        yield from _setting_leaks_label(
            [(profile, channel.step) for profile, channel in _profiles_with_channel(profiles, name)],
            f"quantisation step of {name}",
            unit,
            f"{_STANDARDISE}, keep the step's specimens on one side of the split, and distrust what only they show",
        )


def _setting_leaks_label(
    values: list[tuple[Profile, float | None]], what: str, unit: str, remedy: str
) -> Iterator[Finding]:
    """A finding where values of a setting occur in one class only, and are few enough to be settings."""
    groups = _settings(values)
    if len(groups) > max(2, len(values) // 3):
        return
    telling = _label_leaking_values(groups, Counter(profile.label for profile, _ in values))
    if telling:
        texts = (
            f"{'none' if value is None else f'{value:g} {unit}'.rstrip()} only in {members[0].label} "
            f"({_listed(profile.name for profile in members)})"
            for value, members in telling.items()
        )
        names = dedupe(profile.name for members in telling.values() for profile in members)
        yield Finding("warning", names, f"{what} tells the class: {'; '.join(texts)}", remedy)


def _settings(values: list[tuple[Profile, float | None]]) -> dict[float | None, list[Profile]]:
    """Recordings by value; values that hardly differ from the next are one, the lowest of them."""
    setting: dict[float | None, float | None] = {None: None}
    lowest = previous = 0.0
    for value in sorted({value for _, value in values if value is not None}):
        if value - previous > _SAME_SETTING * value:
            lowest = value
        setting[value] = lowest
        previous = value
    groups = group_by(values, lambda item: setting[item[1]])
    return {value: [profile for profile, _ in members] for value, members in groups.items()}


def _label_leaking_values(
    groups: dict[float | None, list[Profile]], sizes: Counter[str]
) -> dict[float | None, list[Profile]]:
    """The groups that lie in one class: with it wholly, or hardly by chance."""
    if len(sizes) < 2:
        return {}
    exclusive = {value: members for value, members in groups.items() if len({p.label for p in members}) == 1}
    covered = Counter(profile.label for members in exclusive.values() for profile in members)

    def is_telling(members: list[Profile]) -> bool:
        label, n = members[0].label, len(members)
        in_one_class = sum(comb(size, n) for size in sizes.values()) / comb(sizes.total(), n)
        return covered[label] == sizes[label] or (n > 2 and in_one_class < _CHANCE_OF_SETTING)

    return {value: members for value, members in exclusive.items() if is_telling(members)}


def _levels(profiles: list[Profile]) -> Iterator[Finding]:
    """Offsets and levels that separate one class from all others."""
    for name in _all_channels(profiles):
        measured = [(p, channel) for p, channel in _profiles_with_channel(profiles, name) if channel.rms > 0]
        for what, value_of in (
            ("offset", lambda channel: channel.mean / channel.rms),
            ("level", lambda channel: channel.rms),
        ):
            values = [(profile, value_of(channel)) for profile, channel in measured]
            for label, where in _separated(values):
                yield Finding(
                    "warning",
                    (label,),
                    f"{what} of {name} alone tells {label} from all other classes ({where})",
                    f"{_STANDARDISE}; make sure that it is the machine's and not the recorder's",
                )


def _separated(values: list[tuple[Profile, float]]) -> Iterator[tuple[str, str]]:
    """Classes that one threshold separates from all others, and the side, where it is hardly by chance.

    Recordings of one specimen in one class are alike and count once.
    """
    by_label = group_by(values, lambda item: item[0].label)
    cases = {label: len({p.specimen or p.name for p, _ in members}) for label, members in by_label.items()}
    total = sum(cases.values())
    for label in list(by_label)[: -1 if len(by_label) == 2 else None]:  # of two, one tells both
        inside = [value for _, value in by_label[label]]
        outside = [value for profile, value in values if profile.label != label]
        if not outside or 2 / comb(total, cases[label]) > _CHANCE:
            continue
        if min(inside) > max(outside):
            yield label, f"above {min(inside):.3g}"
        elif max(inside) < min(outside):
            yield label, f"below {max(inside):.3g}"


_Check = Callable[[list[Profile]], Iterable[Finding]]
_CHECKS: tuple[_Check, ...] = (
    _bad_samples,
    _constant,
    _stuck,
    _clipped,
    _offset,
    _duplicates,
    _unknown,
    _speed_in_file,
    _too_short,
    _classes,
    _mixtures,
    _recorder_settings,
    _levels,
)


# ------------------------------------------------------------------------------------------------- findings


def _of_channels(
    profiles: Iterable[Profile],
    describe: Callable[[Profile, _Channel], str | None],
    severity: Severity,
    what: str,
    remedy: str,
) -> Iterator[Finding]:
    """One finding on all channels of which `describe` does not say None."""
    found = [
        (profile.name, f"{profile.name} {name} {text}".rstrip())
        for profile in profiles
        for name, channel in profile.channels.items()
        if (text := describe(profile, channel)) is not None
    ]
    if found:
        names, texts = zip(*found, strict=True)
        yield Finding(severity, dedupe(names), f"{what}: {_listed(texts)}", remedy)


def _of_recordings(profiles: Iterable[Profile], severity: Severity, what: str, remedy: str) -> Iterator[Finding]:
    """One finding on all these recordings, none where there are none."""
    names = dedupe(profile.name for profile in profiles)
    if names:
        yield Finding(severity, names, f"{what}: {_listed(names)}", remedy)


def _all_channels(profiles: Iterable[Profile]) -> list[str]:
    return list(dict.fromkeys(name for profile in profiles for name in profile.channels))


def _profiles_with_channel(profiles: Iterable[Profile], channel: str) -> list[tuple[Profile, _Channel]]:
    """The recordings with finite samples in a channel of this name, and the channel."""
    having = [(profile, profile.channels[channel]) for profile in profiles if channel in profile.channels]
    return [(profile, measured) for profile, measured in having if measured.n_bad == 0]


def group_by(items: Iterable[Any], key: Callable[[Any], Hashable]) -> dict[Any, list[Any]]:
    """Items by their key, in the order they come."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def dedupe(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in the order they come."""
    return tuple(dict.fromkeys(names))


def _listed(texts: Iterable[str]) -> str:
    """The first few texts, and how many more there are."""
    texts = list(texts)
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _wrap(indent: str, text: str) -> str:
    return textwrap.fill(text, 110, initial_indent=indent, subsequent_indent=" " * len(indent))
