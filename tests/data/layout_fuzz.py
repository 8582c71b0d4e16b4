"""Generated file layouts with a known signal: what is read must be that signal, its rate and its unit, or an error.

    python -m tests.data.layout_fuzz --seconds 600

Everything varies independently: container, nesting, names, order, shapes, number types, how the rate is stated and in
which unit, what else is in the file (counters, labels, time axes, slow and long arrays, spectra, limits of the speed,
facts of other arrays). An error is a correct answer; the share of errors is reported by container.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.generated_layouts import Layout, Truth, make_layout
from tests.data.written_layouts import CONTAINERS

# ------------------------------------------------------------------------------------------------ windows


def run_windows(seed: int, folder: Path) -> tuple[str, str]:
    """Write windows that were cut beforehand and read them; return the verdict and a message."""
    from whirl.data.reading import read_all

    rng = np.random.default_rng(seed)
    n_windows, n_channels, length = int(rng.integers(9, 60)), int(rng.integers(1, 5)), int(rng.integers(30, 400))
    windows = rng.normal(size=(n_windows, n_channels, length)).astype(np.float32)
    labels = rng.integers(0, 3, n_windows)
    array = windows if n_channels > 1 or rng.random() < 0.5 else windows[:, 0]
    array = (
        np.moveaxis(array, 0, -1) if rng.random() < 0.2 else np.swapaxes(array, -1, -2) if rng.random() < 0.2 else array
    )
    named = rng.random() < 0.8
    variables: dict[str, Any] = {str(rng.choice(["X", "x_train", "signals", "windows"])): array, "fs": 12_000.0}
    if named:
        variables[str(rng.choice(["y", "labels", "target", "class"]))] = (
            labels if rng.random() < 0.7 else labels[:, None]
        )
    if rng.random() < 0.3:
        variables["mean"] = windows.mean(axis=(1, 2))
    if rng.random() < 0.3:
        variables["features"] = rng.normal(size=(n_windows, 6))
    suffix = str(rng.choice([".npz", ".h5", ".mat"]))
    path = folder / f"{seed}{suffix}"
    CONTAINERS[suffix][0](path, Layout(variables, Truth({}, "", 12_000.0), ()), rng)
    shapes = {name: getattr(value, "shape", value) for name, value in variables.items()}
    try:
        recordings = read_all(path)
    except ValueError as error:
        return "refused", f"{error} {shapes}"
    finally:
        path.unlink()
    found = [(recording.label, recording.signal) for recording in recordings]
    right = len(found) == n_windows and all(
        label == str(truth) and signal.shape == window.shape and np.array_equal(signal, window)
        for (label, signal), truth, window in zip(found, labels, windows, strict=True)
    )
    return ("read", "") if right and named else ("wrong", f"windows {seed}{suffix} {shapes}")


# ------------------------------------------------------------------------------------------------ oracle


def check(path: Path, layout: Layout) -> tuple[str, str]:
    """Read a file; return ("read" or "refused", "") or ("wrong", what is wrong)."""
    from whirl.data.reading import read

    truth = layout.truth
    try:
        recording = read(path, sampling_rate_hz=None if truth.is_rate_stated else truth.rate)
    except ValueError as error:
        return ("refused", str(error)) if str(path) in str(error) else ("wrong", f"error without the path: {error}")
    if abs(recording.sampling_rate_hz / truth.rate - 1) > 1e-3:
        return "wrong", f"rate {recording.sampling_rate_hz} instead of {truth.rate}"
    if recording.rpm is not None and (truth.rpm is None or abs(recording.rpm / truth.rpm - 1) > 1e-6):
        return "wrong", f"rpm {recording.rpm} instead of {truth.rpm}"
    missing = {name: (samples, truth.unit) for name, samples in truth.channels.items()}
    allowed = {name: (samples, "A") for name, samples in truth.companions.items()}
    for row, unit, name in zip(recording.signal, recording.units, recording.channels, strict=True):
        match = next((key for key, (samples, _) in (missing | allowed).items() if same(row, samples)), None)
        if match is None:
            return "wrong", f"channel {name!r} was not written as a channel"
        if unit != (missing | allowed)[match][1]:
            return "wrong", f"channel {name!r} has the unit {unit!r} instead of {(missing | allowed)[match][1]!r}"
        missing.pop(match, None)
    return ("wrong", f"channels {list(missing)} are missing") if missing else ("read", "")


def same(row: np.ndarray, samples: np.ndarray) -> bool:
    return len(row) == samples.size and np.allclose(row, samples.astype(np.float32), rtol=1e-5, atol=1e-7)


def run_one(seed: int, folder: Path, *, with_decoys: bool = True) -> tuple[str, str, str, Layout]:
    """Generate, write and read one file; return its container, the verdict, a message and the layout."""
    rng = np.random.default_rng(seed)
    while True:
        suffix = str(rng.choice(list(CONTAINERS)))
        write, nested, fits = CONTAINERS[suffix]
        layout = make_layout(rng, nested=nested, with_decoys=with_decoys)
        if fits(layout):
            break
    path = folder / f"{seed}{suffix}"
    write(path, layout, rng)
    verdict, message = check(path, layout)
    path.unlink()
    return suffix, verdict, message, layout


def describe(seed: int, suffix: str, message: str, layout: Layout) -> str:
    """Return a finding in a few lines."""
    shapes = {name: value.shape if isinstance(value, np.ndarray) else value for name, value in layout.variables.items()}
    return f"seed {seed} {suffix}: {message}\n  decoys {layout.decoys}\n  {shapes}"


def main() -> None:
    """Run until the time is over, and report verdicts by container."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--show-refused", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    verdicts: Counter[tuple[str, str]] = Counter()
    end, seed = time.monotonic() + arguments.seconds, arguments.first_seed
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            suffix, verdict, message, layout = run_one(seed, Path(folder))
            verdicts[suffix, verdict] += 1
            if verdict == "wrong" or (arguments.show_refused and verdict == "refused"):
                print(describe(seed, suffix, message, layout), flush=True)
            verdict, message = run_windows(seed, Path(folder))
            verdicts["windows", verdict] += 1
            if verdict == "wrong" or (arguments.show_refused and verdict == "refused"):
                print(message, flush=True)
            seed += 1
    for (suffix, verdict), count in sorted(verdicts.items()):
        print(f"{suffix:9} {verdict:8} {count}")
    print(f"{sum(verdicts.values())} layouts, {sum(n for (_, v), n in verdicts.items() if v == 'wrong')} wrong")


if __name__ == "__main__":
    main()
