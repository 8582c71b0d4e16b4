"""Watching a folder: files that arrive, are still being written or unreadable, restarts, kills, webhooks."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from typer.testing import CliRunner

from whirl.cli.main import app
from whirl.data.dataset import save_dataset
from whirl.data.simulation import simulate
from whirl.runs.alarms import AlarmRule
from whirl.runs.diagnosis_table import DiagnosisTable
from whirl.runs.prediction import StatedFacts, load_diagnoser
from whirl.runs.training import train
from whirl.runs.watching import RETRY_S, Watch, WatchOptions

N, RATE_HZ = 48_000, 12_000
STATED = StatedFacts(bearing="6205")


def whirl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    recordings = simulate(4, 1, ["healthy", "outer_race"], 0, RATE_HZ, N, snr_db_range=(20, 30))
    save_dataset(recordings, folder / "data")
    return train(folder / "data", out=folder / "run", model="rule", device="cpu", threads=1, precision="32").folder.path


@pytest.fixture(scope="module")
def signals():
    """Signals by class, with the speed of their machine; the fault is severe."""
    clear = {"snr_db_range": (25, 30), "severity_range": (0.9, 1.0)}
    return {each.label: each for each in simulate(1, 1, ["healthy", "outer_race"], 3, RATE_HZ, N, **clear)}


def arrive(file, recording):
    """Write a file as a logger does, in place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, signal=recording.signal, fs=RATE_HZ, rpm=recording.rpm, channels=["ch0"])


def rows_of(log):
    return list(csv.DictReader(log.read_text().splitlines()))


@pytest.fixture
def watched(run, tmp_path):
    """Return a function that makes a watch of a folder, with a clock that is set by hand."""
    diagnoser, tables, changes, clock = load_diagnoser(run), [], [], [0.0]
    folder = tmp_path / "plant"
    folder.mkdir()

    def make(**options):
        tables.append(DiagnosisTable(tmp_path / "log.csv", append=True))
        made = Watch(
            folder, diagnoser, tables[-1], WatchOptions(**options), STATED, changes.append, clock=lambda: clock[0]
        )
        made.folder, made.clock, made.changes = folder, clock, changes
        return made

    yield make
    for table in tables:
        table.__exit__(None, None, None)


def test_files_are_judged_once_they_no_longer_change(watched, signals):
    watch = watched()
    file = watch.folder / "pump 1" / "a.npz"
    arrive(file, signals["outer_race"])
    complete = file.read_bytes()
    file.write_bytes(complete[:1000])
    assert watch.look() == 0
    watch.clock[0] = 10.0
    file.write_bytes(complete)  # it has grown
    assert watch.look() == 0
    watch.clock[0] = 20.0
    assert watch.look() == 1
    assert watch.look() == 0
    (row,) = watch.table.rows
    assert (row["machine"], row["class"]) == ("pump 1", "outer_race")


def test_unreadable_files_are_tried_again_and_then_recorded(watched, signals):
    watch = watched()
    (watch.folder / "broken.npz").write_bytes(b"PK")
    arrive(watch.folder / "good.npz", signals["healthy"])
    watch.look()
    watch.clock[0] = 10.0
    assert watch.look() == 1
    watch.clock[0] = RETRY_S + 1
    assert watch.look() == 1
    assert [row["status"] for row in watch.table.rows][1] == "unreadable"
    assert watch.look() == 0


def test_alarms_survive_a_restart(watched, signals):
    watch = watched(rule=AlarmRule(3, 5))
    for index in range(2):
        arrive(watch.folder / "fan" / f"{index}.npz", signals["outer_race"])
    watch.look(settle_s=0)
    assert watch.changes == []
    again = watched(rule=AlarmRule(3, 5))
    arrive(again.folder / "fan" / "2.npz", signals["outer_race"])
    assert again.look(settle_s=0) == 1
    (change,) = again.changes
    assert change.point.machine == "fan"
    assert change.state.level in ("alarm", "warning")


def test_page_and_webhook_get_changes(watched, signals, tmp_path):
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = tmp_path / "page.html"
    watch = watched(rule=AlarmRule(1, 1), page=page, webhook=f"http://127.0.0.1:{server.server_port}/hook")
    arrive(watch.folder / "fan <1>" / "0.npz", signals["outer_race"])
    watch.look(settle_s=0)
    server.shutdown()
    server.server_close()
    assert received[0]["machine"] == "fan <1>"
    assert received[0]["fault"] == "outer_race"
    assert "fan &lt;1&gt;" in page.read_text()
    assert "outer_race" in page.read_text()


def test_unreachable_webhook_does_not_end_the_watch(watched, signals, caplog):
    watch = watched(rule=AlarmRule(1, 1), webhook="http://127.0.0.1:9/none")
    arrive(watch.folder / "0.npz", signals["outer_race"])
    assert watch.look(settle_s=0) == 1
    assert "could not be reached" in caplog.text


def test_command_judges_acknowledges_and_rejects(run, signals, tmp_path):
    folder, log = tmp_path / "plant", tmp_path / "log.csv"
    folder.mkdir()
    for index in range(3):
        arrive(folder / f"{index}.npz", signals["outer_race"])
    arguments = ("watch", folder, "--run", run, "--log", log, "--bearing", "6205")
    done = whirl(*arguments, "--once")
    assert done.exit_code == 0, done.output
    assert "plant (ch0): normal -> " in done.stdout
    assert "3 new files" in done.stdout
    assert "0 new files" in whirl(*arguments, "--once").stdout
    assert whirl(*arguments, "--acknowledge", "plant").exit_code == 0
    assert rows_of(log)[-1]["status"] == "acknowledged"
    for wrong in (("--acknowledge", "pump"), ("--on", "9"), ("--webhook", "ftp://x")):
        refused = whirl(*arguments, *wrong)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("whirl: ")
    assert whirl("watch", tmp_path / "none", "--run", run, "--log", log).exit_code == 2


@pytest.mark.slow
def test_kills_lose_no_file_and_judge_none_twice(run, signals, tmp_path):
    folder, log = tmp_path / "plant", tmp_path / "log.csv"
    folder.mkdir()
    arguments = [sys.executable, "-m", "whirl", "watch", folder, "--run", run, "--log", log]
    arguments = [*map(str, arguments), "--bearing", "6205", "--every", "0.2"]
    rng, n_files = random.Random(0), 0
    for _ in range(20):
        process = subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + rng.uniform(4.0, 9.0)
        while time.monotonic() < deadline:
            arrive(folder / f"{n_files:04d}.npz", signals[rng.choice(["healthy", "outer_race"])])
            n_files += 1
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert whirl(*arguments[3:9], "--bearing", "6205", "--once").exit_code == 0
    files = [row["file"] for row in rows_of(log)]
    assert len(files) == len(set(files)) == n_files
