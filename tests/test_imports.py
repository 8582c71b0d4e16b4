"""Import paths: the reference's modules are aliases, and public names are found lazily."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import whirl

ROOT = Path(__file__).parents[1]
ALIASES = sorted(path.stem for path in (ROOT / "packages/core/training").glob("*.py") if path.stem != "__init__")
SUB_PACKAGES = sorted(path.parent.name for path in (ROOT / "whirl").glob("*/__init__.pyi"))


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_there_is_an_alias_for_each_documented_module():
    assert len(ALIASES) == 22


def test_both_import_paths_give_the_same_objects():
    """A new process imports the aliases first and then looks up every documented name."""
    code = f"""
import importlib, sys
for name in {ALIASES}:
    alias = importlib.import_module("packages.core.training." + name)
    assert alias.__name__.startswith("whirl."), alias
    assert alias is sys.modules[alias.__name__] is sys.modules["packages.core.training." + name]
    assert getattr(sys.modules["packages.core.training"], name) is alias
import packages.core.training as documented
for name in documented.__all__:
    value = getattr(documented, name)
    owners = [sys.modules["packages.core.training." + module] for module in {ALIASES}]
    assert any(getattr(owner, name, None) is value for owner in owners), name
print(len(documented.__all__))
"""
    assert int(run(code)) > 80


def test_alias_first_and_real_module_first_are_one_module():
    code = "import packages.core.training.trainer as a; import whirl.training.trainer as b; print(a is b)"
    assert run(code) == "True\n"
    code = "from packages.core.training import trainer, Trainer; import whirl; print(trainer.Trainer is whirl.Trainer)"
    assert run(code) == "True\n"


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("Callback", ("callbacks", "cnn_callbacks")),
        ("FocalLoss", ("losses", "cnn_losses")),
        ("LabelSmoothingCrossEntropy", ("losses", "cnn_losses")),
        ("create_optimizer", ("cnn_optimizer", "optimizers")),
        ("get_scheduler", ("cnn_schedulers", "transformer_schedulers")),
    ],
)
def test_name_in_two_modules_is_ambiguous(name, modules):
    with pytest.raises(ImportError, match=rf"training\.{modules[0]} and packages\.core\.training\.{modules[1]}"):
        exec(f"from packages.core.training import {name}")


def test_unknown_names_raise():
    with pytest.raises(ImportError, match="Nonsense"):
        exec("from packages.core.training import Nonsense")
    with pytest.raises(AttributeError, match="Nonsense"):
        whirl.Nonsense  # noqa: B018


def test_public_names_are_listed_and_lazy():
    assert {"Trainer", "read", "simulate", "train", "evaluate", "predict", "losses"} <= set(dir(whirl))
    assert run("import sys, whirl; print('torch' in sys.modules, 'numpy' in sys.modules)") == "False False\n"


@pytest.mark.parametrize("package", SUB_PACKAGES)
def test_every_public_name_of_a_sub_package_exists(package):
    module = importlib.import_module(f"whirl.{package}")
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("stub", sorted((ROOT / "whirl").rglob("__init__.pyi")), ids=lambda p: p.parent.name)
def test_no_lazy_name_equals_a_submodule(stub):
    submodules = {path.stem for path in stub.parent.glob("*.py")} | {path.name for path in stub.parent.iterdir()}
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    names = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) and node.module for alias in node.names
    }
    assert not names & submodules
