"""The choice of threads follows the clock."""

import time

import pytest
import torch

from whirl.engine.threads import fastest_thread_count


@pytest.mark.parametrize(
    ("seconds", "fastest"),
    [
        ({1: 0.004, 2: 0.001}, 2),
        ({1: 0.001, 2: 0.004}, 1),
        ({1: 0.020, 2: 0.019}, 1),
        ({1: 0.008, 2: 0.004, 4: 0.001}, 4),
    ],
)
def test_the_fastest_is_chosen_and_the_setting_comes_back(seconds, fastest):
    before = torch.get_num_threads()
    assert fastest_thread_count(lambda: time.sleep(seconds[torch.get_num_threads()]), list(seconds)) == fastest
    assert torch.get_num_threads() == before
