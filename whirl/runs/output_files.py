"""Files that commands write, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from whirl.data.manifest import MANIFEST
from whirl.engine.files import check_writable


def check_outputs(outputs: Iterable[str | Path | None], inputs: Iterable[Path] = ()) -> None:
    """Validate, before any work, that files can be written and replace nothing that is read.

    Args:
        outputs: files to write; None is no file.
        inputs: recordings that are read; a manifest beside one is read as well.

    Raises:
        ValueError: an output is a folder, is named twice, or is a recording or the manifest of one.
        OSError: the folder of an output cannot be written to.

    Example:
        >>> check_outputs(["judged.csv", None], [Path("a.csv")])
        >>> check_outputs(["a.csv"], [Path("a.csv")])
        Traceback (most recent call last):
        ...
        ValueError: a.csv: is read as a recording and would be replaced; choose another file to write
    """
    wanted = [Path(output) for output in outputs if output is not None]
    recordings = {file.resolve() for file in inputs}
    manifests = {file.parent / MANIFEST for file in recordings}
    seen: set[Path] = set()
    for output in wanted:
        target = output.resolve()
        if output.is_dir():
            raise ValueError(f"{output}: is a folder, expected a file to write")
        for kind, files in (("a recording", recordings), ("the manifest", manifests)):
            if target in files:
                raise ValueError(f"{output}: is read as {kind} and would be replaced; choose another file to write")
        if target in seen:
            raise ValueError(f"{output}: is to be written twice; choose two names")
        check_writable(output.parent)
        seen.add(target)
