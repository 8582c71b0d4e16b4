"""Time of a training step on a CPU: networks in row form compared with `Conv1d`, and bf16 compared with fp32.

Why: on a CPU, a 1-D convolution written as a `1 × k` `Conv2d` in channels-last memory is much faster than `Conv1d` and
gives the same numbers, and bf16 halves the time of a large network. Both hold only as long as nothing converts layouts
in between, pads by copying or falls back to fp32 unnoticed.

What: complete training steps (forward, cross entropy, backward, fused AdamW) on one thread.

- `wdcnn_vs_eager_conv1d`, `[64, 1, 2048]`: the step of the same network built from `nn.Conv1d`, `nn.BatchNorm1d`,
  `nn.ReLU` and `nn.MaxPool1d`, over the step of `wdcnn`. Both start from the same weights, and their logits are
  compared before the clock starts.
- `resnet18_1d_bf16_speedup`, `[32, 1, 4096]`: the step of `resnet18_1d` in fp32 over the step under bf16 autocast. The
  goal is meant for CPUs with bf16 instructions (AVX512-BF16, AMX or Arm's); elsewhere bf16 is emulated and slower.

    python benchmarks/networks.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results
from torch import Tensor, nn
from torch.nn import functional as F

from whirl.models import create_model

GOALS = {"wdcnn_vs_eager_conv1d": ">= 1.6", "resnet18_1d_bf16_speedup": ">= 1.8"}
N_CLASSES, WARMUP_ROUNDS, RESNET_ROUNDS, ROUNDS = 10, 3, 10, 100


def main() -> None:
    arguments = make_parser(__doc__, ROUNDS).parse_args()
    configure()
    torch.manual_seed(0)
    ratios = {
        "wdcnn_vs_eager_conv1d": wdcnn_ratio(arguments.rounds),
        "resnet18_1d_bf16_speedup": resnet_ratio(min(arguments.rounds, RESNET_ROUNDS)),
    }
    print_results(ratios, GOALS)


def wdcnn_ratio(rounds: int) -> float:
    ours, plain = create_model("wdcnn", N_CLASSES), eager_wdcnn()
    plain.load_state_dict(dict(zip(plain.state_dict(), weights_of_conv1d(ours), strict=True)))
    batch = make_batch(64, 2048)
    torch.testing.assert_close(ours(batch[0]), plain(batch[0]), atol=1e-5, rtol=1e-4)
    return step_ratio(make_step(plain, batch), make_step(ours, batch), ("eager Conv1d", "wdcnn"), rounds)


def resnet_ratio(rounds: int) -> float:
    batch = make_batch(32, 4096)
    fp32 = make_step(create_model("resnet18_1d", N_CLASSES), batch)
    bf16 = make_step(create_model("resnet18_1d", N_CLASSES), batch, bf16=True)
    return step_ratio(fp32, bf16, ("resnet18_1d fp32", "resnet18_1d bf16"), rounds)


def step_ratio(slow: Callable[[], None], fast: Callable[[], None], names: tuple[str, str], rounds: int) -> float:
    """Return the time of the one step over that of the other."""
    seconds = measure(dict(zip(names, (slow, fast), strict=True)), rounds, warmup_rounds=WARMUP_ROUNDS)
    print_medians(seconds, "ms", "step")
    return median_ratio(seconds[names[0]], seconds[names[1]])


def eager_wdcnn() -> nn.Module:
    """Return WDCNN built from `Conv1d`; like ours without the biases that batch normalization cancels."""

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
    """Return the weights in order, with kernels `[out, in, 1, k]` reshaped to `[out, in, k]`."""
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


if __name__ == "__main__":
    main()
