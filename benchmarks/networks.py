"""Training steps of the networks on a CPU: their row form against plain `Conv1d`, and bf16 against fp32.

Why: on a CPU a 1-D convolution written as a `1 × k` `Conv2d` in channels-last memory is much faster than `Conv1d` and
gives the same numbers, and bf16 halves the time of a large network. Both hold only while nothing converts layouts in
between, pads by copying or runs in fp32 unnoticed, so they are measured.

What: medians of whole steps (forward, cross entropy, backward, fused AdamW) with the rivals taking turns in one
process on one thread, in CPU time, so that whatever else the machine does hits all alike or not at all. Only ratios
carry over to other machines.

- `wdcnn_vs_eager_conv1d`, `[64, 1, 2048]`: the step of the same network out of `nn.Conv1d`, `nn.BatchNorm1d`, `nn.ReLU`
  and `nn.MaxPool1d` in the usual order, over the step of `wdcnn`. Both start from the same weights, and their logits
  are compared before the clock starts.
- `resnet18_1d_bf16_speedup`, `[32, 1, 4096]`: the step of `resnet18_1d` in fp32 over the step under bf16 autocast.
  Meant for CPUs with bf16 instructions (AVX512-BF16, AMX or Arm's); elsewhere bf16 is emulated and the goal is missed.

Run: `python benchmarks/networks.py`. The last line is one JSON object with the ratios and their goals.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from whirl.models.registry import create_model

GOALS = {"wdcnn_vs_eager_conv1d": ">= 1.6", "resnet18_1d_bf16_speedup": ">= 1.8"}
N_CLASSES = 10


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ratios = {"wdcnn_vs_eager_conv1d": wdcnn_ratio(), "resnet18_1d_bf16_speedup": resnet_ratio()}
    print(json.dumps({"ratios": {name: round(ratio, 3) for name, ratio in ratios.items()}, "goals": GOALS}))


def wdcnn_ratio() -> float:
    ours, plain = create_model("wdcnn", N_CLASSES), eager_wdcnn()
    plain.load_state_dict(dict(zip(plain.state_dict(), weights_of_conv1d(ours), strict=True)))
    batch = make_batch(64, 2048)
    torch.testing.assert_close(ours(batch[0]), plain(batch[0]), atol=1e-5, rtol=1e-4)
    times = interleaved_medians({"wdcnn": make_step(ours, batch), "eager Conv1d": make_step(plain, batch)}, rounds=100)
    return times["eager Conv1d"] / times["wdcnn"]


def resnet_ratio() -> float:
    batch = make_batch(32, 4096)
    steps = {
        "resnet18_1d fp32": make_step(create_model("resnet18_1d", N_CLASSES), batch),
        "resnet18_1d bf16": make_step(create_model("resnet18_1d", N_CLASSES), batch, bf16=True),
    }
    times = interleaved_medians(steps, rounds=10)
    return times["resnet18_1d fp32"] / times["resnet18_1d bf16"]


def eager_wdcnn() -> nn.Module:
    """WDCNN as it is usually written; like ours without the biases that the normalisation cancels."""

    def stage(in_channels: int, out_channels: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
        convolution = nn.Conv1d(in_channels, out_channels, kernel, stride, padding, bias=False)
        return [convolution, nn.BatchNorm1d(out_channels), nn.ReLU(), nn.MaxPool1d(2)]

    features = [
        *stage(1, 16, 64, 16, 24),
        *stage(16, 32, 3, 1, 1),
        *stage(32, 64, 3, 1, 1),
        *stage(64, 64, 3, 1, 1),
        *stage(64, 64, 3, 1, 0),
    ]
    classifier = [nn.Flatten(), nn.Linear(192, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, N_CLASSES)]
    return nn.Sequential(*features, *classifier)


def weights_of_conv1d(network: nn.Module) -> list[Tensor]:
    """The weights in order, kernels `[out, in, 1, k]` as `[out, in, k]`."""
    return [value.squeeze(2) if value.ndim == 4 else value for value in network.state_dict().values()]


def make_batch(size: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 1, length), torch.randint(N_CLASSES, (size,))


def make_step(network: nn.Module, batch: tuple[Tensor, Tensor], bf16: bool = False) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    signals, targets = batch

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(network(signals), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def interleaved_medians(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each step, the steps taking turns."""
    for step in steps.values():
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:20s} {seconds * 1e3:8.2f} ms a step")
    return medians


if __name__ == "__main__":
    main()
