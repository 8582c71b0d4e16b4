"""A progress bar for work on many files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

_DELAY_S = 1.0


def with_progress(items: Sequence[T], description: str) -> Iterable[T]:
    """Return the items, with a progress bar on a terminal if they take longer than a second.

    Under `torchrun`, only rank 0 shows it.

    Args:
        items: files or recordings to work on.
        description: what is done with them, e.g. "reading".

    Example:
        >>> list(with_progress([1, 2], "reading"))
        [1, 2]
    """
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc=description, unit="file", delay=_DELAY_S, leave=False)
