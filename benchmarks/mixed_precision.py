"""What bf16 and fp16 save in a training step, and what they cost in the loss that is reached.

Why: lower precision is sold as faster and smaller. Whether it is depends on the network and on the machine's
instructions, so it is measured with the engine's own step: forward and loss in autocast, backward, clipping and fused
AdamW.

What, for batches `[64, 1, 2048]`:

- time: medians of whole steps, the precisions taking turns in one process. On a CPU on one thread in CPU time, so that
  whatever else the machine does hits all alike or not at all; on CUDA in wall time between synchronisations.
- memory: how far the peak rises over what is there after a step with two samples (weights, gradients, moments and
  libraries), i.e. activations and work space. On a CPU (Linux) it is the process's resident memory, in a fresh process
  per case whose allocations above 64 KiB go back to the system when freed; on CUDA torch's allocated memory. The median
  of three processes.
- loss: validation loss and accuracy per window of `wdcnn` after a short training on simulated journal bearings, the
  machines of the validation part unseen. The arms of a seed share weights, order and machines; differences to fp32 are
  paired, with 95 % t-intervals over the seeds.

On CUDA fp32 means IEEE products, and `tf32` is measured beside it. No goals: the ratios belong to the machine.

Run: `python benchmarks/mixed_precision.py`. It prints Markdown tables; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from whirl.data.loaders import make_loader
from whirl.data.simulation import simulate
from whirl.data.windows import WindowDataset
from whirl.engine.precision import choose_precision
from whirl.engine.updater import Updater
from whirl.evaluation.paired import PairedDifference, compare_arms
from whirl.models.registry import create_model
from whirl.training.mixed_precision import MixedPrecisionTrainer, enable_mixed_precision

NETWORKS = ("wdcnn", "cnn1d", "resnet18_1d")
BATCH, WINDOW, N_CLASSES = 64, 2048, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="for the steps of one case")
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "PRECISION"), help="print one case's peak in MB")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "ieee"
    warnings.simplefilter("ignore")
    logging.disable()
    if arguments.peak:
        print(peak_mb(*arguments.peak, arguments.device))
        return
    precisions = ("32", "tf32", "bf16", "fp16") if arguments.device.startswith("cuda") else ("32", "bf16", "fp16")
    ratios = measure_steps(precisions, arguments.device, arguments.seconds)
    differences = measure_training(precisions, arguments.device, arguments.seeds)
    print(json.dumps({"ratios": ratios, "goals": {}, "differences": differences}))


# -- a step --------------------------------------------------------------------------------------------


def make_step(network: str, precision: str, device: str) -> Callable[[int], None]:
    """One training step on the first `n` samples of a batch."""
    torch.manual_seed(0)
    model = create_model(network, N_CLASSES).to(device)
    signals, targets = torch.randn(BATCH, 1, WINDOW).to(device), torch.randint(N_CLASSES, (BATCH,)).to(device)
    chosen = choose_precision(precision.removeprefix("tf"), torch.device(device))
    updater = Updater(torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), precision=chosen)

    def step(n: int) -> None:
        with enable_mixed_precision() if precision == "tf32" else nullcontext():
            with chosen.context():
                loss = F.cross_entropy(model(signals[:n]), targets[:n])
            updater(loss, n)

    return step


def timed(step: Callable[[int], None], device: str) -> float:
    """Seconds of one step: of the processor on a CPU, on the clock on CUDA."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        began = time.perf_counter()
        step(BATCH)
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    step(BATCH)
    return time.process_time() - began


def step_seconds(network: str, precisions: Iterable[str], device: str, seconds: float) -> dict[str, float]:
    """Median of each precision's step; they take turns, each until it has used its time, twice at least."""
    steps = {precision: make_step(network, precision, device) for precision in precisions}
    for step in steps.values():
        step(2)
    times: dict[str, list[float]] = {precision: [] for precision in steps}
    while waiting := [name for name, values in times.items() if len(values) < 2 or sum(values) < seconds]:
        for precision in waiting:
            times[precision].append(timed(steps[precision], device))
    return {precision: statistics.median(values) for precision, values in times.items()}


def peak_mb(network: str, precision: str, device: str) -> float:
    """How far the peak of memory rises over a step with two samples, in MB."""
    step = make_step(network, precision, device)
    step(2)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(BATCH)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
    before = peak_resident_kib()
    step(BATCH)
    return (peak_resident_kib() - before) * 1024 / 1e6


def peak_resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def peak_in_fresh_processes(network: str, precision: str, device: str) -> float:
    """Median of three, of fewer where 15 s are over before."""
    command = [sys.executable, __file__, "--device", device, "--peak", network, precision]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    peaks: list[float] = []
    began = time.perf_counter()
    while not peaks or (len(peaks) < 3 and time.perf_counter() - began < 15):
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        peaks.append(float(run.stdout))
    return statistics.median(peaks)


def measure_steps(precisions: Iterable[str], device: str, seconds: float) -> dict[str, float]:
    ratios = {}
    print("| network | precision | ms a step | of fp32 | peak MB | of fp32 |\n|---|---|---:|---:|---:|---:|")
    for network in NETWORKS:
        times = step_seconds(network, precisions, device, seconds)
        peaks = {precision: peak_in_fresh_processes(network, precision, device) for precision in precisions}
        for precision in precisions:
            time_ratio, peak_ratio = times[precision] / times["32"], peaks[precision] / peaks["32"]
            name = f"{network} | {'fp32' if precision == '32' else precision}"
            numbers = f"{times[precision] * 1e3:.1f} | {time_ratio:.2f} | {peaks[precision]:.0f} | {peak_ratio:.2f}"
            print(f"| {name} | {numbers} |", flush=True)
            if precision != "32":
                ratios[f"{network}_{precision}_time"] = round(time_ratio, 3)
                ratios[f"{network}_{precision}_peak"] = round(peak_ratio, 3)
    return ratios


# -- a training ----------------------------------------------------------------------------------------


def train(seed: int, precision: str, device: str) -> tuple[dict[str, float], float]:
    """What a short training reaches: its last validation numbers, and its skipped steps."""
    recordings = simulate(n_machines=8, recordings_per_class=1, seed=seed, n_samples=8 * WINDOW)
    machines = sorted({recording.specimen for recording in recordings})
    classes = sorted({recording.label for recording in recordings})
    parts = [
        WindowDataset([r for r in recordings if (r.specimen in machines[-2:]) == unseen], classes, WINDOW)
        for unseen in (False, True)
    ]
    torch.manual_seed(seed)
    model = create_model("wdcnn", len(classes))
    trainer = MixedPrecisionTrainer(
        model,
        make_loader(parts[0], BATCH, shuffle=True, seed=seed),
        torch.optim.AdamW(model.to(device).parameters(), lr=2e-3, fused=True),
        nn.CrossEntropyLoss(),
        device,
        precision=precision.removeprefix("tf"),
        val_loader=make_loader(parts[1], BATCH),
    )
    with enable_mixed_precision() if precision == "tf32" else nullcontext():
        history = trainer.fit(12)
    return {name: history[name][-1] for name in ("val_loss", "val_accuracy")}, trainer.skipped_steps


def measure_training(precisions: Iterable[str], device: str, n_seeds: int) -> dict[str, list[float]]:
    scores: dict[str, dict[str, dict[int, float]]] = {
        name: {precision: {} for precision in precisions} for name in ("val_loss", "val_accuracy")
    }
    skipped = dict.fromkeys(precisions, 0)
    for seed in range(n_seeds):
        for precision in precisions:
            reached, skips = train(seed, precision, device)
            skipped[precision] += skips
            for name, value in reached.items():
                scores[name][precision][seed] = value
    loss, accuracy = (compare_arms(by_precision, "32") for by_precision in scores.values())
    print(f"\n| wdcnn, {n_seeds} seeds | loss | difference to fp32 | accuracy | difference to fp32 | skipped steps |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in precisions:
        cells = (
            f"{loss[name].mean:.4f} | {interval(loss[name])} | {accuracy[name].mean:.4f} | {interval(accuracy[name])}"
        )
        print(f"| {'fp32' if name == '32' else name} | {cells} | {skipped[name]} |")
    return {
        f"{precision}_{kind}": [found[precision].difference, found[precision].low, found[precision].high]
        for kind, found in (("loss", loss), ("accuracy", accuracy))
        for precision in precisions
        if precision != "32"
    }


def interval(found: PairedDifference) -> str:
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


if __name__ == "__main__":
    main()
