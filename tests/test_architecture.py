"""Layering: sub-packages import only from lower ones, imports are acyclic, and only the engine trains."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "whirl"
# From the ground up. Sub-packages of one row do not import each other.
LAYERS = [
    {"_csv", "_display", "_distribution", "_locks", "_parallel", "_plotting", "_precision", "validation"},
    {"registry", "metrics"},
    {"physics"},
    {"dsp"},
    {"data"},
    {"models"},
    {"engine"},
    {"losses", "optim", "augment", "callbacks"},
    {"training"},
    {"diagnosis"},
    {"evaluation"},
    {"tuning"},
    {"runs"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {module_of(path) for path in FILES}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules of whirl that a file imports anywhere, functions and `TYPE_CHECKING` included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert not {name for name in names if name.startswith("packages")}, f"{path} imports an alias"
    return frozenset(name for name in names if name.startswith("whirl."))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_from_lower_layers(path):
    own = module_of(path).split(".")[1]
    for name in imports_of(path):
        other = name.split(".")[1]
        assert other == own or LEVEL[other] < LEVEL[own], f"{own} imports {name}"


def test_imports_are_acyclic():
    graph = {module_of(path): imports_of(path) & MODULES for path in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_every_module_has_a_layer():
    present = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert present - {"__init__"} <= set(LEVEL)


def test_namespace_packages_have_no_init_file():
    assert not (ROOT / "packages" / "__init__.py").exists()
    assert not (ROOT / "packages" / "core" / "__init__.py").exists()


def n_lines(paths) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def test_no_sub_package_has_a_fifth_of_the_code():
    total = n_lines(PACKAGE.rglob("*.py"))
    for folder in {path.parent for path in PACKAGE.glob("*/__init__.py")}:
        assert n_lines(folder.rglob("*.py")) < 0.2 * total, folder.name


def calls(path: Path, name: str) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
        for node in ast.walk(tree)
    )


def test_only_the_engine_calls_backward():
    assert {module_of(path) for path in FILES if calls(path, "backward")} == {
        "whirl.engine.precision",
        "whirl.engine.updater",
    }


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


HEAVY = ["torch", "pandas", "scipy", "scipy.signal", "matplotlib.pyplot", "sklearn", "tensorboard", "mlflow", "h5py"]


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        ("whirl, whirl.cli.main, whirl.data.recording", set()),
        ("whirl.training.trainer, whirl.callbacks.callbacks, whirl.models.registry", {"torch"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(modules, allowed):
    """Modules that `import torch` imports itself are not counted."""
    code = f"import sys; import {modules}; print(*[m for m in {HEAVY} if m in sys.modules])"
    extra = "import torch, sys; print(*sys.modules)" if "torch" in allowed else "print()"
    assert set(run(code).split()) - set(run(extra).split()) <= allowed


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from whirl.cli.main import main; sys.argv = ['whirl', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', *[m for m in {HEAVY} if m in sys.modules])"
    )
    assert run(code).splitlines()[-1] == "HEAVY"


def test_functions_of_the_command_are_short():
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 40, (
                    f"{path.name}: {node.name}; logic belongs in lower layers"
                )
