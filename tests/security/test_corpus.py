"""Malicious files: code execution, memory exhaustion, hangs and path traversal end in a one-line error.

`benchmarks/malicious_files.py` measures the processor time that they take.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.security import array_cases, table_cases, unfolding_cases  # noqa: F401 - registers the cases
from tests.security.cases import CASES

ROOT = Path(__file__).parents[2]
MAX_MB = 500.0

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Result of each case; cases after one that crashed the worker process are missing."""
    if sys.platform != "linux":
        pytest.skip("peak memory is read from Linux's /proc")
    root = tmp_path_factory.mktemp("malicious")
    paths = {}
    for name, malicious in CASES.items():
        (root / name).mkdir()
        paths[name] = malicious.write(root / name)
    requests = "".join(json.dumps({"how": CASES[name].how, "path": str(path)}) + "\n" for name, path in paths.items())
    worker = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("read_worker.py"))],
        input=requests, capture_output=True, text=True, check=False, timeout=1500, cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = dict(zip(CASES, map(json.loads, worker.stdout.splitlines()), strict=False))
    assert found, worker.stderr
    return {name: result | {"path": str(paths[name]), "root": root} for name, result in found.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        metafunc.parametrize("case_name", CASES)


def test_malicious_file_gives_one_line_error_within_limits(case_name: str, results: dict[str, dict[str, Any]]) -> None:
    assert case_name in results, "the worker process crashed on this file or an earlier one"
    result, message = results[case_name], CASES[case_name].message
    assert not list(result["root"].rglob("canary*")), "code in a file was executed"
    assert result["peak_mb"] < MAX_MB
    if not message:
        assert result["error"] == ""
        return
    assert result["error"] in ("ValueError", "FileNotFoundError"), result["message"]
    assert re.search(message, result["message"]), result["message"]
    assert result["path"] in result["message"]
    assert "\n" not in result["message"]
    assert len(result["message"]) < 1000
