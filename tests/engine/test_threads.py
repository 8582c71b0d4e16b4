"""fastest_thread_count, with a simulated clock."""

import pytest
import torch

from whirl.engine import threads
from whirl.engine.threads import fastest_thread_count


@pytest.mark.parametrize(
    ("step_time", "fastest"),
    [
        ({1: 4, 2: 1}, 2),
        ({1: 1, 2: 4}, 1),
        ({1: 20, 2: 19}, 1),
        ({1: 8, 2: 4, 4: 1}, 4),
    ],
)
def test_returns_the_fastest_count_and_restores_the_setting(step_time, fastest, monkeypatch):
    before, now = torch.get_num_threads(), 0.0

    def step():
        nonlocal now
        now += step_time[torch.get_num_threads()]

    monkeypatch.setattr(threads.time, "perf_counter", lambda: now)
    assert fastest_thread_count(step, list(step_time)) == fastest
    assert torch.get_num_threads() == before


def test_long_steps_are_measured_once(monkeypatch):
    calls, now = 0, 0.0

    def step():
        nonlocal calls, now
        calls, now = calls + 1, now + {1: 0.9, 2: 0.6}[torch.get_num_threads()]

    monkeypatch.setattr(threads.time, "perf_counter", lambda: now)
    assert fastest_thread_count(step, [1, 2]) == 2
    assert calls == 4  # one to warm up and one measured, with each number of threads
