"""Processes that `torchrun` starts again meet each other, not those that died."""

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


def meet(number, start, port, agreed):
    """As the agent starts it: all share its store, which lives on over restarts."""
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(N_PROCESSES), "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(start), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
    if start == 1 and number == 1:
        time.sleep(0.5)  # the other one comes first, when the store still has an address of the one that died
    with process_group(torch.device("cpu")):
        if all_reduce_any(number == 1):
            with agreed.get_lock():
                agreed.value += 1
        if start == 0:
            time.sleep(0.2)  # until the other one has its answer
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(90)
def test_restarted_processes_do_not_call_the_dead():
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    agreed = FORK.Value("i", 0)
    for start in range(2):
        processes = [FORK.Process(target=meet, args=(n, start, store.port, agreed)) for n in range(N_PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(40)
        assert [process.exitcode for process in processes] == [0 if start else -signal.SIGKILL] * N_PROCESSES
    assert agreed.value == 2 * N_PROCESSES
