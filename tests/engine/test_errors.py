"""Known failures of torch become errors with a one-line message; other errors are unchanged."""

import pytest
import torch

from whirl.engine.errors import translate_torch_errors
from whirl.training.trainer import Trainer

KILLED = "DataLoader worker (pid 71) is killed by signal: Bus error. It is possible that ... Try to raise your limit."
GONE = "DataLoader worker (pid(s) 71, 72) exited unexpectedly"
CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 9 GiB of which 3 GiB is free."


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RuntimeError(KILLED), ChildProcessError, r"\(pid 71 is killed by signal: Bus error\).*--workers 0"),
        (RuntimeError(GONE), ChildProcessError, r"\(pid 71, 72 exited unexpectedly\).*--workers 0"),
        (torch.OutOfMemoryError(CUDA), MemoryError, r"^the GPU .*\(torch Tried to allocate 20.00 GiB\).*--batch-size"),
        (RuntimeError("mat1 and mat2 shapes\ncannot be multiplied"), RuntimeError, "mat1"),
        (ValueError("out of memory"), ValueError, "^out of memory$"),
    ],
)
def test_known_failures_have_one_line_messages(error, kind, message):
    with pytest.raises(kind, match=message) as caught, translate_torch_errors():
        raise error
    assert type(caught.value) is kind
    assert caught.value is error or "\n" not in str(caught.value)


@pytest.mark.parametrize("network", [torch.nn.Linear(8, 2), torch.nn.Conv1d(1, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int16])
def test_signals_of_another_type_name_the_remedy(network, dtype):
    with pytest.raises(TypeError, match=r"weights are float: .*signals.float\(\)"), translate_torch_errors():
        network(torch.zeros(2, 1, 8, dtype=dtype))


def test_batch_too_large_for_the_machine_is_a_memory_error():
    """2^62 bytes exceed any address space."""
    model = torch.nn.Linear(1, 2)
    trainer = Trainer(
        model,
        [(torch.ones(1, 1, 1), torch.zeros(1).long())],
        device="cpu",
        criterion=lambda outputs, targets: outputs.sum() + torch.empty(2**60).sum(),
    )
    with pytest.raises(MemoryError, match=r"this machine has too little memory .*: choose a smaller batch"):
        trainer.fit(1)
