"""Table and figure of the physics ablation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from whirl.engine.files import atomic_write
from whirl.evaluation.paired import PairedDifference
from whirl.experiments.ablation_arms import CONTROL_ARM

Results = Mapping[str, Mapping[str, PairedDifference]]
"""`{condition: {arm: difference in balanced accuracy to the control}}`."""


def format_table(results: Results) -> str:
    """Format the results as a Markdown table."""
    lines = [
        f"| condition | arm | runs | balanced accuracy | difference to `{CONTROL_ARM}` | 95 % interval | Wilcoxon p |",
        "|---|---|---|---|---|---|---|",
    ]
    for condition, arms in results.items():
        lines += [f"| {condition} | `{arm}` | {_cells(arm, difference)} |" for arm, difference in arms.items()]
    return "\n".join(lines) + "\n"


def _cells(arm: str, difference: PairedDifference) -> str:
    cells = f"{difference.n_runs} | {difference.mean:.3f}"
    if arm == CONTROL_ARM:
        return f"{cells} | | |"
    if difference.n_runs == 1:
        return f"{cells} | {difference.difference:+.3f} | – | –"
    interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    return f"{cells} | {difference.difference:+.3f} | {interval} | {difference.p_value:.3f}"


def plot_results(results: Results, path: Path) -> None:
    """Plot the differences to the control with their confidence intervals, one panel per condition, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results), 0.4 * max(map(len, results.values())) + 1.4), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for panel, (condition, arms) in zip(panels, results.items(), strict=True):
        names = [arm for arm in arms if arm != CONTROL_ARM]
        differences = [arms[arm] for arm in names]
        means = [d.difference for d in differences]
        errors = [[d.difference - d.low for d in differences], [d.high - d.difference for d in differences]]
        panel.errorbar(means, range(len(names)), xerr=errors, fmt="o", capsize=3)
        panel.axvline(0, color="grey", linewidth=1)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(f"{condition}: {CONTROL_ARM} {arms[CONTROL_ARM].mean:.2f}", fontsize=10)
        panel.set_xlabel("difference in balanced accuracy")
    panels[0].invert_yaxis()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=150)
