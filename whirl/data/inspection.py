"""What is in a set of recordings, and what in it is suspicious, before anybody trains on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whirl.data.dataset import list_dataset
from whirl.data.quality_checks import (
    SEVERITIES,
    Finding,
    Profile,
    channel_names,
    dedupe,
    group_by,
    profile_of,
    run_checks,
)
from whirl.data.recording import Recording


@dataclass(frozen=True)
class ClassSummary:
    """What there is of one class.

    Attributes:
        label: name of the class; empty for recordings without one.
        n_recordings: number of recordings.
        n_specimens: number of known specimens.
        seconds: total duration.
        rates_hz: the sampling rates that occur.
        rpm: lowest and highest known shaft speed; None when none is known.
        loads: lowest and highest known load with its unit; empty when none is known.
        channels: the sets of channels that occur.
    """

    label: str
    n_recordings: int
    n_specimens: int
    seconds: float
    rates_hz: tuple[float, ...]
    rpm: tuple[float, float] | None
    loads: str
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """A table of what there is, and what was found, gravest first; as text it fits a terminal.

    Attributes:
        classes: one row per class.
        findings: what is suspicious.
    """

    classes: tuple[ClassSummary, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        findings = [str(finding) for finding in self.findings]
        return "\n".join([_table(self.classes), "", *(findings or ["nothing suspicious"])])


def inspect_dataset(
    folder: str | Path,
    *,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    sampling_rate_hz: float | None = None,
) -> Inspection:
    """Inspect a folder of recordings, one file at a time.

    Unlike `load_dataset` it goes on where a file cannot be read, lacks a channel or holds NaN, and
    reports it as a finding. Arguments, and errors that concern the whole folder, are as there.
    """
    profiles: list[Profile] = []
    unreadable: list[Finding] = []
    for entry in list_dataset(folder, classes):
        try:
            recording = entry.read(sampling_rate_hz)
            profiles.append(profile_of(recording.select_channels(channels) if channels else recording))
        except ValueError as error:
            unreadable.append(Finding("error", (entry.path.name,), str(error), "mend the file or leave it out"))
    return _inspect(profiles, unreadable)


def inspect_recordings(recordings: Iterable[Recording]) -> Inspection:
    """Summarise recordings class by class, and look for what is suspicious.

    Looked for are samples that are NaN, infinite, clipped, constant, or far from zero on average;
    recordings that are duplicates or shorter than a default window; missing labels, specimens and
    speeds, and speeds that differ from the file's; mixed units and channels; classes with one
    specimen; and what the recorder alone tells about the class: a sampling rate or quantisation step
    that only one class has, an offset or level that separates a class from all others.

    Args:
        recordings: the recordings; of a generator one at a time is held.

    Example:
        >>> import numpy as np
        >>> from whirl.data.inspection import inspect_recordings
        >>> noise = np.random.default_rng(0).normal(size=(1, 4096))
        >>> one = Recording(noise, 4096, label="wear", rpm=1500, specimen="B1", source="a.wav")
        >>> two = Recording(noise + 9, 4096, label="healthy", rpm=1500, specimen="B2", source="b.wav")
        >>> inspection = inspect_recordings([one, two])
        >>> [row.label for row in inspection.classes]
        ['healthy', 'wear']
        >>> next(finding.message for finding in inspection.findings if "offset" in finding.message)
        'DC offset larger than the signal (mean in multiples of the RMS about it): b.wav ch0 9.0'
    """
    return _inspect([profile_of(recording) for recording in recordings], [])


def _inspect(profiles: list[Profile], unreadable: list[Finding]) -> Inspection:
    findings = unreadable + run_checks(profiles)
    by_label = group_by(profiles, lambda profile: profile.label)
    return Inspection(
        classes=tuple(_summary(label, by_label[label]) for label in sorted(by_label)),
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
    )


def _summary(label: str, members: list[Profile]) -> ClassSummary:
    rpms = [profile.rpm for profile in members if profile.rpm is not None]
    by_unit = group_by((p for p in members if p.load is not None), lambda profile: profile.load_unit)
    loads = (f"{_span([profile.load for profile in group])} {unit}".strip() for unit, group in sorted(by_unit.items()))
    return ClassSummary(
        label=label,
        n_recordings=len(members),
        n_specimens=len({profile.specimen for profile in members} - {None}),
        seconds=sum(profile.duration_s for profile in members),
        rates_hz=tuple(sorted({profile.sampling_rate_hz for profile in members})),
        rpm=(min(rpms), max(rpms)) if rpms else None,
        loads=", ".join(loads),
        channels=dedupe(map(channel_names, members)),
    )


def _span(numbers: Sequence[float]) -> str:
    lowest, highest = min(numbers), max(numbers)
    return f"{lowest:.5g}" if lowest == highest else f"{lowest:.5g} to {highest:.5g}"


def _table(classes: Iterable[ClassSummary]) -> str:
    """Rows of columns, aligned: numbers to the right, texts to the left."""
    header = ("class", "recordings", "specimens", "seconds", "rate/Hz", "rpm", "load", "channels")
    rows = [
        (
            row.label or "(none)",
            f"{row.n_recordings}",
            f"{row.n_specimens}",
            f"{row.seconds:.1f}",
            ", ".join(f"{rate:g}" for rate in row.rates_hz),
            _span(row.rpm) if row.rpm else "?",
            row.loads or "?",
            " | ".join(row.channels),
        )
        for row in classes
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    to_the_right = range(1, 5)
    lines = (
        "  ".join(
            text.rjust(width) if column in to_the_right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )
    return "\n".join(lines)
