"""The house stands: rooms import upwards only, and one place trains."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["physics", "signals", "models", "engine", "training", "evaluation", "pipeline"]
NEVER = {"signals": {"models", "engine", "training"}, "models": {"engine", "training"}}
FILES = sorted((ROOT / "packages").rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    return parts[2] if parts[:2] == ("packages", "core") else parts[1]


def imported_rooms(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {room_of(tuple(name.split("."))) for name in names if name.startswith("packages.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_from_rooms_above_it(path):
    room = room_of(path.relative_to(ROOT).parts)
    order = [*ROOMS, "cli"]
    for other in imported_rooms(path):
        assert order.index(other) <= order.index(room), f"{room} imports {other}"
        assert other not in NEVER.get(room, set())


def test_every_room_is_in_the_table():
    present = {p.name for p in (ROOT / "packages" / "core").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert present == set(ROOMS)


def test_namespaces_have_no_init():
    assert not (ROOT / "packages" / "__init__.py").exists()
    assert not (ROOT / "packages" / "core" / "__init__.py").exists()


def calls(path: Path, name: str) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
        for node in ast.walk(tree)
    )


def test_only_the_engine_calls_backward():
    callers = {p.relative_to(ROOT / "packages" / "core").as_posix() for p in FILES if calls(p, "backward")}
    assert callers == {"engine/precision.py", "engine/updater.py"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


HEAVY = ["torch", "pandas", "scipy.signal", "matplotlib.pyplot", "sklearn", "tensorboard", "mlflow", "h5py"]


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("packages.cli.main", set()),
        ("packages.core.training.trainer", {"torch"}),
        ("packages.core.training.callbacks", {"torch"}),
        ("packages.core.models.registry", {"torch"}),
        ("packages.core.signals.recording", set()),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module, allowed):
    """torch itself brings some modules in; only what a plain `import torch` does not bring counts."""
    code = f"import sys; import {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    extra = "import torch, sys; print(*sys.modules)" if "torch" in allowed else "print()"
    assert set(run(code).split()) - set(run(extra).split()) <= allowed
