"""Specimens of samples: one check for all searches, which never train and test on the same specimen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def specimen_ids(name: str, groups: Iterable[Any], n_samples: int) -> tuple[np.ndarray, list[Any]]:
    """Validate the specimens of samples and number them.

    Args:
        name: name of the argument, for messages.
        groups: specimen of each sample, of any hashable type, also tuples.
        n_samples: expected number of samples.

    Returns:
        Integers `[n_samples]` in 0..S-1, and the S specimens, sorted if they can be.

    Raises:
        ValueError: the number of specimens is wrong; one is missing (None, NaN, `pandas.NA`) or not hashable; or two of
            them, such as 1 and '1', differ only in their type.

    Example:
        >>> specimen_ids("groups", [("rig", 1), ("rig", 2), ("rig", 1)], 3)
        (array([0, 1, 0]), [('rig', 1), ('rig', 2)])
    """
    listed = list(groups)
    if len(listed) != n_samples:
        raise ValueError(f"{name} has {len(listed)} entries for {n_samples} samples")
    for row, specimen in enumerate(listed):
        if is_missing(specimen):
            raise ValueError(f"{name}[{row}] is {specimen}, expected the specimen of the sample")
        if not _is_hashable(specimen):
            raise ValueError(f"{name}[{row}] is {specimen!r}, expected a number, a string or a tuple of these")
    specimens = list(dict.fromkeys(listed))
    _check_types(name, specimens)
    try:
        specimens.sort()
    except TypeError:
        specimens.sort(key=str)
    numbers = {specimen: number for number, specimen in enumerate(specimens)}
    return np.array([numbers[specimen] for specimen in listed], dtype=np.int64), specimens


def check_no_specimen_in_both(groups_train: Iterable[Any] | None, groups_val: Iterable[Any] | None) -> None:
    """Validate that no specimen is in both training and validation data.

    Otherwise a model could recognize the specimen instead of the fault, and the score would be too high.

    Raises:
        ValueError: a specimen is in both; only one of the two is given; or see `specimen_ids`.

    Example:
        >>> check_no_specimen_in_both(["rig 1", "rig 2"], ["rig 3"])
    """
    if groups_train is None and groups_val is None:
        return
    if groups_train is None or groups_val is None:
        raise ValueError("only one of groups_train and groups_val is given, expected both or neither")
    train, val = list(groups_train), list(groups_val)
    _, of_train = specimen_ids("groups_train", train, len(train))
    _, of_val = specimen_ids("groups_val", val, len(val))
    _check_types("groups_train and groups_val", [*of_train, *of_val])
    shared = sorted(set(of_train) & set(of_val), key=str)
    if shared:
        others = f", and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise ValueError(f"specimen {shared[0]!r} is in both training and validation data{others}")


def check_disjoint(folds: Sequence[tuple[np.ndarray, np.ndarray]], ids: np.ndarray, specimens: Sequence[Any]) -> None:
    """Validate that no fold has a specimen in both of its parts.

    Raises:
        ValueError: a fold has.
    """
    for number, (train, test) in enumerate(folds, start=1):
        shared = sorted((specimens[i] for i in set(ids[train]) & set(ids[test])), key=str)
        if shared:
            raise ValueError(
                f"fold {number} of cv has specimen {str(shared[0])!r} in both its training and its test part; use "
                "a number of folds, or a splitter that respects groups, e.g. GroupKFold"
            )


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, NaT or `pandas.NA`, none of which identify anything.

    Example:
        >>> is_missing(float("nan")), is_missing("")
        (True, False)
    """
    if value is None or (isinstance(value, tuple) and any(map(is_missing, value))):
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA
        return True
    except ValueError:  # an array
        return False


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _check_types(name: str, specimens: Iterable[Any]) -> None:
    """Raise if two specimens differ only in their type, as after reading one of two files with other types."""
    by_text: dict[str, Any] = {}
    for specimen in specimens:
        other = by_text.setdefault(str(specimen), specimen)
        if other != specimen:
            raise ValueError(f"{name} contain both {other!r} and {specimen!r}, expected one type for each specimen")
