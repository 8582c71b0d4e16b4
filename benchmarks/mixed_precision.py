"""Time and memory that bf16 and fp16 save in a training step, and their effect on the loss that is reached.

Why: whether lower precision is faster and smaller depends on the network and on the machine's instructions, so it is
measured with the engine's own step: forward and loss in autocast, backward, clipping and fused AdamW.

What, for batches `[64, 1, 2048]`:

- time: medians of complete steps, the precisions running alternately. On a CPU it is processor time on one thread,
  which other work disturbs least; on CUDA wall time between synchronizations.
- memory: how far the peak rises over what is there after a step with two samples (weights, gradients, moments and
  libraries), i.e. activations and work space. On a CPU (Linux) it is the resident memory of a fresh process per case,
  whose allocations above 64 KiB are returned to the system when freed; on CUDA torch's allocated memory. The median of
  three processes.
- loss: validation loss and accuracy per window of `wdcnn` after a short training on simulated journal bearings, on
  machines that training has not seen. The arms of a seed share weights, order and machines; differences to fp32 are
  paired, with 95 % t-intervals over the seeds.

On CUDA, fp32 means IEEE products, and `tf32` is measured as well. There are no goals: the ratios depend on the machine.
It prints Markdown tables.

    python benchmarks/mixed_precision.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import torch
from _harness import add_seed_options, chosen_seeds, configure, make_parser, print_results, timed
from torch import nn
from torch.nn import functional as F

from whirl.data import WindowDataset, make_loader, simulate
from whirl.engine.precision import choose_precision
from whirl.engine.updater import Updater
from whirl.evaluation.paired import PairedDifference, compare_arms
from whirl.models import create_model
from whirl.training import MixedPrecisionTrainer, enable_mixed_precision

NETWORKS = ("wdcnn", "cnn1d", "resnet18_1d")
BATCH, WINDOW, N_CLASSES = 64, 2048, 10
GOALS: dict[str, str] = {}


def main() -> None:
    parser = make_parser(__doc__)
    add_seed_options(parser, seeds=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="time for the steps of one case (default %(default)s)"
    )
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "PRECISION"), help="print one case's peak in MB")
    arguments = parser.parse_args()
    configure()
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "ieee"
    if arguments.peak:
        print(peak_mb(*arguments.peak, arguments.device))
        return
    precisions = ("32", "tf32", "bf16", "fp16") if arguments.device.startswith("cuda") else ("32", "bf16", "fp16")
    ratios = measure_steps(precisions, arguments.device, arguments.seconds)
    differences = measure_training(precisions, arguments.device, chosen_seeds(arguments))
    print_results(ratios, GOALS, differences=differences)


# -- a step ------------------------------------------------------------------------------------------------------------


def make_step(network: str, precision: str, device: str) -> Callable[[int], None]:
    """Return a function that takes one training step on the first `n` samples of a batch."""
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


def step_timer(step: Callable[[int], None], device: str) -> Callable[[], float]:
    """Return a function that measures one step: in processor time on a CPU, in wall time on CUDA."""
    if not device.startswith("cuda"):
        return timed(lambda: step(BATCH))

    def synchronized_clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return timed(lambda: step(BATCH), clock=synchronized_clock)


def step_seconds(network: str, precisions: Iterable[str], device: str, seconds: float) -> dict[str, float]:
    """Return the median of each precision's step; they alternate, each until it has used its time, at least twice."""
    steps = {precision: make_step(network, precision, device) for precision in precisions}
    for step in steps.values():
        step(2)
    timers = {precision: step_timer(step, device) for precision, step in steps.items()}
    times: dict[str, list[float]] = {precision: [] for precision in steps}
    while waiting := [name for name, values in times.items() if len(values) < 2 or sum(values) < seconds]:
        for precision in waiting:
            times[precision].append(timers[precision]())
    return {precision: statistics.median(values) for precision, values in times.items()}


def peak_mb(network: str, precision: str, device: str) -> float:
    """Return how far the peak of memory rises over a step with two samples, in MB."""
    step = make_step(network, precision, device)
    step(2)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(BATCH)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is resident now
    before = peak_resident_kib()
    step(BATCH)
    return (peak_resident_kib() - before) * 1024 / 1e6


def peak_resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def peak_in_fresh_processes(network: str, precision: str, device: str) -> float:
    """Return the median of three processes, or of fewer when 15 s have passed."""
    command = [sys.executable, __file__, "--device", device, "--peak", network, precision]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    peaks: list[float] = []
    start = time.perf_counter()
    while not peaks or (len(peaks) < 3 and time.perf_counter() - start < 15):
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        peaks.append(float(run.stdout))
    return statistics.median(peaks)


def measure_steps(precisions: Iterable[str], device: str, seconds: float) -> dict[str, float]:
    ratios = {}
    print("| network | precision | ms per step | of fp32 | peak MB | of fp32 |\n|---|---|---:|---:|---:|---:|")
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


# -- a training --------------------------------------------------------------------------------------------------------


def train(seed: int, precision: str, device: str) -> tuple[dict[str, float], float]:
    """Return the last validation loss and accuracy of a short training, and its number of skipped steps."""
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


def measure_training(precisions: Iterable[str], device: str, seeds: range) -> dict[str, list[float]]:
    scores: dict[str, dict[str, dict[int, float]]] = {
        name: {precision: {} for precision in precisions} for name in ("val_loss", "val_accuracy")
    }
    skipped = dict.fromkeys(precisions, 0)
    for seed in seeds:
        for precision in precisions:
            reached, skips = train(seed, precision, device)
            skipped[precision] += skips
            for name, value in reached.items():
                scores[name][precision][seed] = value
    loss, accuracy = (compare_arms(by_precision, "32") for by_precision in scores.values())
    print(
        f"\n| wdcnn, {len(seeds)} seeds | loss | difference to fp32 | accuracy | difference to fp32 | skipped steps |"
    )
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
