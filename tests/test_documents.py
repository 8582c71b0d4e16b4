"""Code, commands, settings, paths and links in the documentation are valid."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
for_each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", read(document), re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", read(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@for_each_document
def test_links_are_valid(document):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", read(document)):
        path = (document.parent / target) if target else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@for_each_document
def test_mentioned_files_exist(document):
    for path in re.findall(r"\b(?:tests|benchmarks|examples|whirl)/[\w./]*\.py\b", read(document)):
        assert (ROOT / path).exists(), path


@for_each_document
def test_python_compiles_and_its_imports_exist(document):
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                exec(ast.unparse(node), {})


@pytest.mark.filterwarnings("ignore:device")
def test_readme_example_runs():
    (block,) = blocks(ROOT / "README.md", "python")
    names: dict = {}
    exec(block, names)
    assert len(names["history"]["train_loss"]) == 3


USE_OF_ADDITIONS = """
import whirl
import torch
from whirl.training.registry import TRAINERS
from whirl.losses.registry import LOSSES

recordings = whirl.simulate(n_machines=3, recordings_per_class=1, classes=("healthy", "oil_whirl"), n_samples=4096)
loader = whirl.make_loader(whirl.WindowDataset(recordings, ("healthy", "oil_whirl"), window=1024), batch_size=8)
trainer = TRAINERS.get("sparse")(
    whirl.create_model("mean_and_std", num_classes=2), loader, loader, criterion=LOSSES.get("confidence_penalty")(),
    device="cpu", callbacks=[StopWhenPerfect()],
)
assert len(trainer.fit(2)["train_sparsity"]) >= 1
logits, targets = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
assert confidence_penalty(logits, targets, beta=0) == F.cross_entropy(logits, targets)
import numpy as np
np.arange(100, dtype="<i2").tofile("signal.counts")
assert whirl.read("signal.counts").signal.shape == (1, 100)
"""


def test_examples_of_contributing_run_together(tmp_path):
    code = "\n".join([*blocks(ROOT / "CONTRIBUTING.md", "python"), USE_OF_ADDITIONS])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def code_lines(document: Path) -> list[str]:
    """Indented lines, and lines of fenced blocks without a language; continued lines are joined."""
    lines, language = [], None
    for line in re.sub(r"\\\n\s*", "", read(document)).split("\n"):
        if line.startswith("```"):
            language = None if language is not None else line[3:]
        elif language == "" or (language is None and line.startswith("    ")):
            lines.append(line)
    return lines


def command_lines(document: Path) -> list[list[str]]:
    """Words of each `whirl` command, without its comment."""
    found = [re.search(r"^\s*(?:\.venv/bin/|.*torchrun .*-m )?whirl (\w.*)$", line) for line in code_lines(document)]
    return [match.group(1).split("#")[0].split() for match in found if match]


@for_each_document
def test_commands_and_their_options_exist(document):
    from typer.main import get_command

    from whirl.cli.main import app

    for words in command_lines(document):
        command = get_command(app)
        for word in words:
            if hasattr(command, "commands"):
                command = command.get_command(None, word)
                assert command is not None, " ".join(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            assert not word.startswith("--") or word in known, f"{word} in whirl {' '.join(words)}"


@for_each_document
def test_settings_in_yaml_are_valid(document):
    from whirl.runs.config import Config, parse_config
    from whirl.runs.search_space import check_space

    for block in blocks(document, "yaml"):
        settings = yaml.safe_load(block)
        if settings.keys() <= Config.model_fields.keys():
            parse_config(settings)
        else:
            check_space(settings, Config())


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(example):
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


FOLDERS = ("whirl", "packages", "tests", "docs", "examples", "benchmarks")
ALIASES_EXPLAINED = (
    "packages",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/decisions/2026-11-30-one-package.md",
    "tests/test_documents.py",
    "tests/test_imports.py",
    "tests/test_packaging.py",
)


def text_files() -> list[Path]:
    suffixes = {".py", ".pyi", ".md", ".toml", ".cff", ".html", ".txt", ".yaml"}
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    return [path for path in found if path.is_file() and (path.suffix in suffixes or path.name == "Makefile")]


def test_nothing_advises_to_install_the_other_project_named_whirl():
    wrong = re.compile(r"pip\S* install [^\n`]*?['\"\s]whirl(?!_diagnostics|-diagnostics|\w)")
    for path in text_files():
        if path != Path(__file__):
            assert not wrong.search(read(path)), path


def test_only_aliases_and_their_explanations_name_the_alias_paths():
    for path in text_files():
        if not str(path.relative_to(ROOT)).startswith(ALIASES_EXPLAINED):
            assert not re.search(r"packages[./]core", read(path)), path
