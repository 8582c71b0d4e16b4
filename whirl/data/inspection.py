"""Inspection of a set of recordings before training: a summary per class, and data quality findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whirl.data.dataset import list_dataset
from whirl.data.labels import similar_labels
from whirl.data.progress import with_progress
from whirl.data.quality import Profile, profile_of
from whirl.data.quality_checks import SEVERITIES, Finding, channel_names, dedupe, group_by, run_checks
from whirl.data.recording import Recording


@dataclass(frozen=True)
class ClassSummary:
    """Summary of the recordings of one class.

    Attributes:
        label: name of the class; empty for unlabeled recordings.
        n_recordings: number of recordings.
        n_specimens: number of known specimens.
        seconds: total duration in s.
        rates_hz: all sampling rates in Hz.
        rpm: lowest and highest known shaft speed in rev/min; None if no speed is known.
        loads: lowest and highest known load with unit; empty if no load is known.
        channels: all sets of channels.
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
    """Result of an inspection; `str()` formats it for a terminal.

    Attributes:
        classes: a summary per class, sorted by label.
        findings: results of the quality checks, most severe first.
    """

    classes: tuple[ClassSummary, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        findings = [str(finding) for finding in self.findings]
        return "\n".join([_table(self.classes), "", *(findings or ["no findings"])])


def inspect_dataset(
    folder: str | Path,
    *,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    sampling_rate_hz: float | None = None,
) -> Inspection:
    """Inspect a folder of recordings, one file at a time.

    Unlike `load_dataset`, this reports files that cannot be read, lack a channel or contain NaN as findings instead of
    raising an error.

    Args:
        folder: the folder.
        channels: names of the channels to inspect; None inspects all.
        classes: labels of the recordings to inspect; None inspects all.
        sampling_rate_hz: sampling rate to assume if neither manifest nor file states one.

    Raises:
        FileNotFoundError, ValueError: the folder is missing, empty, or has an invalid manifest, see `load_dataset`.
    """
    profiles: list[Profile] = []
    unreadable: list[Finding] = []
    for entry in with_progress(list_dataset(folder, classes), "reading and checking"):
        try:
            recordings = entry.read_all(sampling_rate_hz)
            profiles.extend(profile_of(each.select_channels(channels) if channels else each) for each in recordings)
        except ValueError as error:
            unreadable.append(Finding("error", (entry.path.name,), str(error), "repair or exclude the file"))
    return _inspect(profiles, unreadable)


def inspect_recordings(recordings: Iterable[Recording]) -> Inspection:
    """Summarize recordings by class and run the quality checks.

    The checks find samples that are NaN, infinite, clipped or constant, and large DC offsets; duplicates; recordings
    shorter than a default window; missing labels, specimens and speeds, and speeds that differ from those in the file;
    mixed units and channels; classes with a single specimen; and label leakage by the recorder: a sampling rate or
    quantization step that occurs in only one class, an offset or level that separates a class from all others.

    Args:
        recordings: the recordings; a generator is consumed one recording at a time, to save memory.

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
        'DC offset larger than the signal (ratio of mean to standard deviation): b.wav ch0 9.0'
    """
    return _inspect([profile_of(recording) for recording in recordings], [])


def _inspect(profiles: list[Profile], unreadable: list[Finding]) -> Inspection:
    findings = unreadable + run_checks(profiles)
    findings += [
        Finding("warning", (), f"label {sentence}", "use one spelling in manifest.csv or for the folders")
        for sentence in similar_labels(profile.label for profile in profiles if profile.label)
    ]
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
    """Format summaries as a table with numbers aligned right and texts aligned left."""
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
    right_aligned = range(1, 5)
    lines = (
        "  ".join(
            text.rjust(width) if column in right_aligned else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )
    return "\n".join(lines)
