"""The contents of wheel and sdist, and that an installed whirl works from any folder."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from whirl._distribution import DISTRIBUTION, install_hint

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def build(kind, folder):
    """Build from a copy, so that caches of this checkout are not included."""
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = (path for path in folder.iterdir() if path.suffix in (".whl", ".gz"))
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An interpreter with the wheel and the dependencies of this environment, but without this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Paths in a .pth file are added as they are: the editable install of this checkout is not.
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return folder / "bin" / "python"


def run(python, *arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )


def test_distribution_name_is_stated_once():
    assert PROJECT["name"] == DISTRIBUTION
    for extra, requirements in PROJECT["optional-dependencies"].items():
        own = [requirement for requirement in requirements if requirement.startswith("whirl")]
        assert all(requirement.startswith(f"{DISTRIBUTION}[") for requirement in own), extra


def test_every_install_hint_names_an_extra():
    extras = set()
    for path in (ROOT / "whirl").rglob("*.py"):
        extras |= set(re.findall(r"install_hint\([\"'](\w+)[\"']\)", path.read_text(encoding="utf-8")))
    assert extras <= set(PROJECT["optional-dependencies"])
    assert install_hint("search") == "pip install 'whirl-diagnostics[search]'"


def test_wheel_contains_only_the_package_and_the_aliases(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        facts = message_from_string(archive.read(metadata).decode())
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"whirl", "packages"}
    for needed in ("whirl/py.typed", "whirl/__init__.pyi", "whirl/evaluation/templates/report.html"):
        assert needed in names
    assert sum(name.startswith("packages/core/training/") and name.endswith(".py") for name in names) == 23
    assert facts["Name"] == "whirl-diagnostics"
    assert not any("/tests/" in name or "__pycache__" in name for name in names)


def test_sdist_contains_files_named_in_its_readme(tmp_path):
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "README.md",
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
        "LICENSE",
        "CITATION.cff",
        "SECURITY.md",
    ):
        assert needed in names
    linked = re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {link.rstrip("/") for link in linked} <= names


def test_installed_package_works_beside_another_packages_folder(python, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "__init__.py").write_text("raise RuntimeError('a foreign package')")
    done = run(python, "-c", "import whirl; print(whirl.__file__); whirl.Trainer", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(python.parents[1]) in done.stdout
    size = ("--family", "rolling", "--machines", "3", "--recordings", "1", "--seconds", "0.2")
    done = run(python, "-m", "whirl", "simulate", "data", *size, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(python, "-m", "whirl", "inspect", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "outer_race" in done.stdout


def test_installed_aliases_are_the_same_objects(python, tmp_path):
    code = "import whirl; from packages.core.training import Trainer; print(Trainer is whirl.Trainer)"
    assert run(python, "-c", code, cwd=tmp_path).stdout == "True\n"


def test_type_checker_resolves_the_lazy_imports(python, tmp_path):
    (tmp_path / "use.py").write_text(
        "import whirl\n"
        "from packages.core.training.trainer import Trainer\n"
        "def f(model, loader):\n"
        "    whirl.Trainer(model, loader)\n"
        "    whirl.Trainer(model, loader, nonsense=3)\n"
        "    Trainer(model, loader, nonsense=4)\n"
        "    whirl.losses.FocalLoss(nonsense=5)\n"
    )
    pyright = Path(sys.executable).with_name("pyright")
    if not pyright.exists():
        pytest.skip("pyright is not installed")
    done = run(pyright, "--pythonpath", str(python), "use.py", cwd=tmp_path)
    found = [int(line) for line in re.findall(r"use\.py:(\d+):\d+ - error: No parameter named", done.stdout)]
    assert found == [5, 6, 7], done.stdout


@pytest.mark.slow
def test_wheel_installs_into_an_empty_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "empty")], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel)]
    done = run(python, *install, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(python.with_name("whirl"), "--version", cwd=tmp_path)
    assert re.fullmatch(r"whirl \d+\.\d+\.\d+\n", done.stdout)
    done = run(python, "-c", "import whirl; whirl.BayesianOptimizer", cwd=tmp_path)
    assert "pip install 'whirl-diagnostics[search]'" in done.stderr
