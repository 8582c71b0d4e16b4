"""What the documents show runs, and where they point to exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.filterwarnings("ignore:device")
def test_the_example_of_the_readme_runs():
    (block,) = python_blocks(ROOT / "README.md")
    names: dict = {}
    exec(block, names)
    assert len(names["history"]["train_loss"]) == 3


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_in_documents_compiles_and_imports_what_exists(document):
    for block in python_blocks(document):
        compile(block, str(document), "exec")
        for line in re.findall(r"^from packages\S+ import .*$", block, re.MULTILINE):
            exec(line, {})


def test_commands_in_documents_exist():
    from typer.main import get_command

    from whirl.cli.main import app

    known = set(get_command(app).commands)
    for document in DOCUMENTS:
        for command in re.findall(
            r"^\s*(?:\.venv/bin/)?whirl (\w+)", document.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert command in known, f"{document.name}: whirl {command}"


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(example):
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
