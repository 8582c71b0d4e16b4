"""Fingerprints of recordings: whether a run, a search or an ablation continues with the data that it began with."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import numpy as np

from whirl._distribution import installed_version
from whirl.data.recording import Recording
from whirl.engine.files import to_json_safe

logger = logging.getLogger(__name__)

_REMARKS = ("left_out",)  # metadata in which readers describe what they did, in words that may change


def fingerprint_inputs(recordings: Sequence[Recording], unlabeled: Sequence[Recording] = ()) -> dict[str, str]:
    """Hash everything that recordings contribute to a computation, by its name.

    Every attribute of `Recording` counts: samples, labels, speeds, loads, units, bearings, metadata and so on, in the
    order of the recordings. Files may be moved and renamed: of `source`, only the groups of equal values are hashed.

    Args:
        recordings: labeled recordings.
        unlabeled: recordings for the physics terms only.

    Example:
        >>> slow, fast = (Recording(np.zeros(8), 12_000, rpm=rpm, source="a.csv") for rpm in (1500, 1797))
        >>> first, second = fingerprint_inputs([slow]), fingerprint_inputs([fast])
        >>> [name for name in first if first[name] != second[name]]
        ['rpm']
    """
    both = [*recordings, *unlabeled]
    names = [field.name for field in fields(Recording) if field.name not in ("signal", "source", "metadata")]
    values = {name: [getattr(recording, name) for recording in both] for name in names}
    values["source"] = _first_of_equal([recording.source or str(index) for index, recording in enumerate(both)])
    values["metadata"] = [_metadata(recording) for recording in both]
    values["number of recordings"] = [len(recordings), len(unlabeled)]
    return {"samples": _hash_samples(both)} | {name: hash_plain(value) for name, value in values.items()}


def _first_of_equal(names: Sequence[str]) -> list[int]:
    """Return for each name the index of the first equal one."""
    first: dict[str, int] = {}
    return [first.setdefault(name, index) for index, name in enumerate(names)]


def _metadata(recording: Recording) -> dict[str, Any]:
    return {name: value for name, value in recording.metadata.items() if name not in _REMARKS}


def _hash_samples(recordings: Sequence[Recording]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for recording in recordings:
        digest.update(repr(recording.signal.shape).encode())
        digest.update(np.ascontiguousarray(recording.signal).data)
    return digest.hexdigest()


def hash_plain(value: Any) -> str:
    """Hash numbers, texts, lists and dictionaries by their values."""
    text = json.dumps(to_json_safe(value), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def combine(inputs: Mapping[str, str]) -> str:
    """Return one hash of all inputs."""
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


def content_of(recording: Recording) -> str:
    """Hash the samples of a recording, independent of its file name."""
    return hashlib.blake2b(np.ascontiguousarray(recording.signal).data, digest_size=8).hexdigest()


def check_same_inputs(where: object, inputs: Mapping[str, str], saved: Mapping[str, Any]) -> None:
    """Validate that recordings are those that a run was started with.

    Args:
        where: what to name in the message, e.g. the folder of the recordings.
        inputs: result of `fingerprint_inputs`.
        saved: metadata of the run, with `fingerprint` and `inputs`.

    Raises:
        ValueError: the recordings have changed; the message names what differs.
    """
    if combine(inputs) == saved["fingerprint"]:
        return
    before = saved.get("inputs", {})
    differing = [name for name in inputs if before.get(name) != inputs[name]] if before else []
    what = f" (other {', '.join(differing)})" if differing else ""
    raise ValueError(f"{where}: the recordings are not those that the run was started with{what}; start a new run")


def library_versions() -> dict[str, str]:
    """Return the versions of whirl, of the libraries that compute, and of Python."""
    libraries = {name: version(name) for name in ("torch", "numpy")}
    return {"whirl": installed_version(), **libraries, "python": platform.python_version()}


def warn_of_other_versions(where: object, saved: Mapping[str, str]) -> None:
    """Log a warning if a run was started with other versions: its results may differ in the last digits, or more.

    Args:
        where: what to name in the message, e.g. the run folder.
        saved: versions by name; empty if unknown.
    """
    now = library_versions()
    differing = [f"{name} {old} (now {now[name]})" for name, old in saved.items() if now.get(name, old) != old]
    if differing:
        logger.warning("%s: was started with %s; results may differ", where, ", ".join(differing))
