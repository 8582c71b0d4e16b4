"""Processes that `torchrun` restarts connect to each other, not to those of the earlier start."""

import multiprocessing
import os
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist

from whirl.engine.distributed import all_reduce_any, process_group

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and POSIX signals")
FORK = multiprocessing.get_context("fork")
N_PROCESSES = 2
TIMEOUT_S = 600


def wait_until(condition):
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def join_group(number, start, port, joining, agreed):
    """Do what a process of the agent does: all share its store, which is kept over restarts."""
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(N_PROCESSES), "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(start), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
    if start == 1 and number == 1:
        # Rank 0 joins first, while the store still has the address of the killed rank 1.
        assert joining.wait(TIMEOUT_S)
        time.sleep(0.2)
    if start == 1:
        joining.set()
    with process_group(torch.device("cpu")):
        if all_reduce_any(number == 1):
            with agreed.get_lock():
                agreed.value += 1
        if start == 0:
            wait_until(lambda: agreed.value == N_PROCESSES)  # a kill before would be an error of the other process
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(1800)
def test_restarted_processes_do_not_connect_to_killed_ones():
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    joining, agreed = FORK.Event(), FORK.Value("i", 0)
    for start in range(2):
        arguments = [(number, start, store.port, joining, agreed) for number in range(N_PROCESSES)]
        processes = [FORK.Process(target=join_group, args=each) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join(TIMEOUT_S)
        assert [process.exitcode for process in processes] == [0 if start else -signal.SIGKILL] * N_PROCESSES
    assert agreed.value == 2 * N_PROCESSES
