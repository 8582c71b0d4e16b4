"""Checks of recordings for data quality problems and label leakage, based on their profiles."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

from whirl.data.quality import MIN_REVOLUTIONS, ChannelProfile, Profile

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

# Relative difference between stated speeds that is due to rounding, or to the drift of a motor under load.
_RPM_TOLERANCE = 0.01
# Fraction of the recording for which a constant signal is a dropout.
_STUCK_FRACTION = 0.1
# Relative difference below which two values are the same setting of the recorder.
_SETTING_TOLERANCE = 0.01
# Probability by chance below which a separation of the classes is significant. The limit for settings is higher, since
# settings depend on the specimen, and there are few specimens.
_MAX_P_VALUE = 1e-3
_MAX_SETTING_P_VALUE = 0.1

_MAX_NAMES_SHOWN = 5

_STANDARDIZE = "keep windows standardized (the default)"


@dataclass(frozen=True)
class Finding:
    """A result of the quality checks.

    Attributes:
        severity: `error` (training fails, or its results are misleading), `warning`, or `info`.
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
    """Run all checks on the profiles of a set of recordings."""
    return [finding for check in _CHECKS for finding in check(profiles)]


# ------------------------------------------------------------------------------------------------- checks: samples


def _check_nonfinite(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _channel_finding(
        profiles,
        lambda _, channel: f"({channel.n_bad}, the first at {channel.first_bad})" if channel.n_bad else None,
        "error",
        "NaN or infinite samples",
        "repair or exclude the files",
    )


def _check_constant(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _channel_finding(
        profiles,
        lambda _, channel: "" if channel.is_constant else None,
        "error",
        "constant channels",
        "select other channels with --channels, or exclude the recordings",
    )


def _check_stuck(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _channel_finding(
        profiles,
        lambda profile, channel: (
            f"{channel.stuck_s:.3g} s"
            if channel.rms > 0 and channel.stuck_s > _STUCK_FRACTION * profile.duration_s
            else None
        ),
        "warning",
        "dropouts (constant signal)",
        "cut out the dropout, or exclude the recordings",
    )


def _check_clipped(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _channel_finding(
        profiles,
        lambda profile, channel: (
            f"at {channel.extreme:.3g} {profile.unit}".rstrip() + f" ({channel.n_clipped} samples)"
            if channel.rms > 0 and channel.n_clipped
            else None
        ),
        "warning",
        "clipped at full scale",
        "record again with a larger range, or exclude the recordings",
    )


def _check_offset(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _channel_finding(
        profiles,
        lambda _, channel: f"{abs(channel.mean) / channel.rms:.1f}" if 0 < channel.rms < abs(channel.mean) else None,
        "warning",
        "DC offset larger than the signal (ratio of mean to standard deviation)",
        f"the offset may identify recordings: {_STANDARDIZE}, or remove the mean",
    )


def _check_duplicates(profiles: list[Profile]) -> Iterator[Finding]:
    channels = [
        (profile, name, channel.digest)
        for profile in profiles
        for name, channel in profile.channels.items()
        if channel.digest and not channel.is_constant
    ]
    for copies in group_by(channels, lambda item: item[2]).values():
        if len(copies) > 1:
            is_contradiction = len({profile.label for profile, *_ in copies}) > 1
            yield Finding(
                "error" if is_contradiction else "warning",
                dedupe(profile.name for profile, *_ in copies),
                f"identical signals{' with different labels' if is_contradiction else ''}: "
                + _join_first(f"{profile.name} {name}" for profile, name, _ in copies),
                "keep one of them",
            )


# ------------------------------------------------------------------------------------------------- checks: metadata


def _check_missing(profiles: list[Profile]) -> Iterator[Finding]:
    for what, is_missing, remedy in (
        ("label", lambda p: not p.label, "training requires a label for each recording: add it to manifest.csv"),
        ("specimen", lambda p: p.specimen is None, "add a specimen column, or split with --split recording"),
        ("shaft speed", lambda p: p.rpm is None, "add an rpm column, which windows and fault orders require"),
    ):
        yield from _recording_finding(filter(is_missing, profiles), "warning", f"unknown {what}", remedy)


def _check_speed(profiles: list[Profile]) -> Iterator[Finding]:
    known = [profile for profile in profiles if profile.rpm is not None]
    yield from _recording_finding(
        (profile for profile in known if profile.rpm_in_file is None),
        "info",
        "nominal shaft speed that the file does not state",
        "measure the speed if fault orders matter, since slip shifts them",
    )
    for profile in known:
        stored, rpm = profile.rpm_in_file, profile.rpm or 0.0
        if stored is not None and abs(stored - rpm) > _RPM_TOLERANCE * rpm:
            yield Finding(
                "warning",
                (profile.name,),
                f"rpm of {profile.name} is {rpm:g}, but the file states {stored:g}",
                "check which of them matches the spectrum",
            )


def _check_length(profiles: list[Profile]) -> Iterator[Finding]:
    yield from _recording_finding(
        (p for p in profiles if p.n_revolutions is not None and p.n_revolutions < MIN_REVOLUTIONS),
        "warning",
        f"shorter than a default window of {MIN_REVOLUTIONS} revolutions",
        "record longer, or choose a shorter --window",
    )


def _check_classes(profiles: list[Profile]) -> Iterator[Finding]:
    by_label = group_by((profile for profile in profiles if profile.label), lambda profile: profile.label)
    if len(by_label) == 1:
        yield Finding("error", tuple(by_label), f"only one class: {next(iter(by_label))}", "add another class")
    single = []
    for label, members in by_label.items():
        specimens = {profile.specimen for profile in members}
        if len(specimens) == 1 and None not in specimens:
            single.append(label)
    if single:
        yield Finding(
            "warning",
            tuple(single),
            f"only one specimen, cannot be split by specimen: {', '.join(single)}",
            "add recordings of another specimen, exclude the class with --classes, or use --split time "
            "--allow-leakage, which is stated in the report",
        )


def _check_consistency(profiles: list[Profile]) -> Iterator[Finding]:
    shared = ",".join(name for name in _all_channels(profiles) if all(name in p.channels for p in profiles))
    for what, value_of, remedy in (
        ("units", lambda p: p.unit or "unknown", "convert the files to one unit, or state it in manifest.csv"),
        (
            "channels",
            channel_names,
            f"select the common channels: --channels {shared}" if shared else "train only on recordings of one kind",
        ),
    ):
        counts = Counter(map(value_of, profiles))
        if len(counts) > 1:
            found = ", ".join(f"{value} ({n})" for value, n in counts.most_common())
            yield Finding("warning", tuple(counts), f"different {what}: {found}", remedy)


def channel_names(profile: Profile) -> str:
    """Return the names of a recording's channels as one text."""
    return " ".join(profile.channels)


# -------------------------------------------------------------------------------------------- checks: label leakage


def _check_recorder_settings(profiles: list[Profile]) -> Iterator[Finding]:
    """Find recorder settings that occur in only one class."""
    unit = next((profile.unit for profile in profiles if profile.unit), "")
    yield from _setting_leaks_label(
        [(profile, profile.sampling_rate_hz) for profile in profiles],
        "sampling rate",
        "Hz",
        "resample to a common rate and band (training does this); traces of the anti-alias filter remain",
    )
    for name in _all_channels(profiles):
        yield from _setting_leaks_label(
            [(profile, channel.step) for profile, channel in _profiles_with_channel(profiles, name)],
            f"quantization step of {name}",
            unit,
            f"{_STANDARDIZE}, keep the specimens with this step in one part of the split, and do not rely on results "
            "that only they support",
        )


def _setting_leaks_label(
    values: list[tuple[Profile, float | None]], what: str, unit: str, remedy: str
) -> Iterator[Finding]:
    """Yield a finding if values occur in only one class and are few enough to be settings."""
    groups = _group_settings(values)
    if len(groups) > max(2, len(values) // 3):
        return
    leaking = _label_leaking_values(groups, Counter(profile.label for profile, _ in values))
    if leaking:
        texts = (
            f"{'none' if value is None else f'{value:g} {unit}'.rstrip()} only in {members[0].label} "
            f"({_join_first(profile.name for profile in members)})"
            for value, members in leaking.items()
        )
        names = dedupe(profile.name for members in leaking.values() for profile in members)
        yield Finding("warning", names, f"{what} leaks the label: {'; '.join(texts)}", remedy)


def _group_settings(values: list[tuple[Profile, float | None]]) -> dict[float | None, list[Profile]]:
    """Group recordings by value; values that differ little from the next one are replaced by the lowest of them."""
    setting: dict[float | None, float | None] = {None: None}
    lowest = previous = 0.0
    for value in sorted({value for _, value in values if value is not None}):
        if value - previous > _SETTING_TOLERANCE * value:
            lowest = value
        setting[value] = lowest
        previous = value
    groups = group_by(values, lambda item: setting[item[1]])
    return {value: [profile for profile, _ in members] for value, members in groups.items()}


def _label_leaking_values(
    groups: dict[float | None, list[Profile]], sizes: Counter[str]
) -> dict[float | None, list[Profile]]:
    """Return groups within one class that cover the class completely, or are improbable by chance."""
    if len(sizes) < 2:
        return {}
    exclusive = {value: members for value, members in groups.items() if len({p.label for p in members}) == 1}
    covered = Counter(profile.label for members in exclusive.values() for profile in members)

    def is_leaking(members: list[Profile]) -> bool:
        label, n = members[0].label, len(members)
        p_value = sum(comb(size, n) for size in sizes.values()) / comb(sizes.total(), n)
        return covered[label] == sizes[label] or (n > 2 and p_value < _MAX_SETTING_P_VALUE)

    return {value: members for value, members in exclusive.items() if is_leaking(members)}


def _check_levels(profiles: list[Profile]) -> Iterator[Finding]:
    """Find offsets and levels that separate one class from all others."""
    for name in _all_channels(profiles):
        measured = [(p, channel) for p, channel in _profiles_with_channel(profiles, name) if channel.rms > 0]
        for what, value_of in (
            ("offset", lambda channel: channel.mean / channel.rms),
            ("level", lambda channel: channel.rms),
        ):
            values = [(profile, value_of(channel)) for profile, channel in measured]
            for label, where in _separable_classes(values):
                yield Finding(
                    "warning",
                    (label,),
                    f"{what} of {name} alone separates {label} from all other classes ({where})",
                    f"{_STANDARDIZE}; check that it is a property of the machine and not of the recorder",
                )


def _separable_classes(values: list[tuple[Profile, float]]) -> Iterator[tuple[str, str]]:
    """Yield classes that one threshold separates from all others, and the side, if improbable by chance.

    Recordings of one specimen in one class are similar and count once.
    """
    by_label = group_by(values, lambda item: item[0].label)
    n_cases = {label: len({p.specimen or p.name for p, _ in members}) for label, members in by_label.items()}
    total = sum(n_cases.values())
    for label in list(by_label)[: -1 if len(by_label) == 2 else None]:  # with two classes, report only one
        inside = [value for _, value in by_label[label]]
        outside = [value for profile, value in values if profile.label != label]
        if not outside or 2 / comb(total, n_cases[label]) > _MAX_P_VALUE:
            continue
        if min(inside) > max(outside):
            yield label, f"above {min(inside):.3g}"
        elif max(inside) < min(outside):
            yield label, f"below {max(inside):.3g}"


_Check = Callable[[list[Profile]], Iterable[Finding]]
_CHECKS: tuple[_Check, ...] = (
    _check_nonfinite,
    _check_constant,
    _check_stuck,
    _check_clipped,
    _check_offset,
    _check_duplicates,
    _check_missing,
    _check_speed,
    _check_length,
    _check_classes,
    _check_consistency,
    _check_recorder_settings,
    _check_levels,
)


# ------------------------------------------------------------------------------------------------- helpers


def _channel_finding(
    profiles: Iterable[Profile],
    describe: Callable[[Profile, ChannelProfile], str | None],
    severity: Severity,
    what: str,
    remedy: str,
) -> Iterator[Finding]:
    """Yield one finding for all channels for which `describe` does not return None."""
    found = [
        (profile.name, f"{profile.name} {name} {text}".rstrip())
        for profile in profiles
        for name, channel in profile.channels.items()
        if (text := describe(profile, channel)) is not None
    ]
    if found:
        names, texts = zip(*found, strict=True)
        yield Finding(severity, dedupe(names), f"{what}: {_join_first(texts)}", remedy)


def _recording_finding(profiles: Iterable[Profile], severity: Severity, what: str, remedy: str) -> Iterator[Finding]:
    """Yield one finding for all these recordings, if there are any."""
    names = dedupe(profile.name for profile in profiles)
    if names:
        yield Finding(severity, names, f"{what}: {_join_first(names)}", remedy)


def _all_channels(profiles: Iterable[Profile]) -> list[str]:
    return list(dict.fromkeys(name for profile in profiles for name in profile.channels))


def _profiles_with_channel(profiles: Iterable[Profile], channel: str) -> list[tuple[Profile, ChannelProfile]]:
    """Return the recordings that have finite samples in a channel of this name, and the channel."""
    pairs = [(profile, profile.channels[channel]) for profile in profiles if channel in profile.channels]
    return [(profile, measured) for profile, measured in pairs if measured.n_bad == 0]


def group_by(items: Iterable[Any], key: Callable[[Any], Hashable]) -> dict[Any, list[Any]]:
    """Group items by key, in order of first appearance."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def dedupe(names: Iterable[str]) -> tuple[str, ...]:
    """Remove repeated names, in order of first appearance."""
    return tuple(dict.fromkeys(names))


def _join_first(texts: Iterable[str]) -> str:
    """Join the first few texts for a message, and state how many more there are."""
    texts = list(texts)
    more = len(texts) - _MAX_NAMES_SHOWN
    return ", ".join(texts[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _wrap(indent: str, text: str) -> str:
    return textwrap.fill(text, 110, initial_indent=indent, subsequent_indent=" " * len(indent))
