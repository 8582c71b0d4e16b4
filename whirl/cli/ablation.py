"""`whirl ablation`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from whirl.cli.errors import names_in, report_errors

ablation = typer.Typer(help="Ablations with paired runs and controls.", no_args_is_help=True)


@ablation.command("physics")
@report_errors
def physics_ablation(
    data: Annotated[
        Path | None, typer.Argument(help="Folder of recordings; without it, journal bearings are simulated.")
    ] = None,
    arms: Annotated[
        str, typer.Option(help="Arms to run in addition to ce.")
    ] = "physics,unlabeled,random_bands,scrambled,features,features+physics,evidence,rule",
    conditions: Annotated[str, typer.Option(help="Conditions of simulated bearings: few, speed_shift, noise.")] = "few",
    labels: Annotated[int, typer.Option(help="Labeled windows per class; 0 for all.")] = 5,
    seeds: Annotated[int, typer.Option(help="Number of runs per arm.")] = 10,
    first_seed: Annotated[int, typer.Option(help="Seed of the first run.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the unlabeled windows.")] = 10,
    weight: Annotated[float, typer.Option(help="Weight lambda of the frequency term.")] = 1.0,
    form: Annotated[str, typer.Option(help="Form of the frequency term: log, linear, set or kl.")] = "log",
    trust: Annotated[bool, typer.Option(help="Correct the physics by the labeled windows.")] = True,
    network: Annotated[str, typer.Option(help="Network, or backbone of arms with evidence or orders.")] = "wdcnn",
    bearing: Annotated[str | None, typer.Option(help="Rolling bearing of DATA, e.g. 6205.")] = None,
    channels: Annotated[str | None, typer.Option(help="Channels to use, e.g. DE.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to use.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Sampling rate (Hz) of files that state none.")] = None,
    without: Annotated[str | None, typer.Option(help="Specimens of DATA to omit.")] = None,
    window_s: Annotated[float, typer.Option(help="Window length of DATA (s).")] = 1.0,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, ...")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the results; an interrupted ablation is resumed there.")] = Path(
        "ablation"
    ),
) -> None:
    """Measure how much physics improves on cross entropy, with negative controls."""
    from whirl.experiments import AblationSetting, folder_tasks, format_table, run_physics_ablation, simulated_tasks

    logging.getLogger("whirl.training").setLevel(logging.WARNING)  # hundreds of trainings would flood the log
    setting = AblationSetting(
        labels=labels,
        epochs=epochs,
        weight=weight,
        form=form,
        trust=trust,
        network=network,
        bearing=bearing,
        device=device,
        data=f"{data.resolve()}: {channels}, {classes}, {sampling_rate}, {without}, {window_s}"
        if data
        else "simulated",
    )
    if data is None:
        tasks = simulated_tasks(setting)
    else:
        tasks = folder_tasks(
            data,
            setting,
            channels=names_in(channels),
            classes=names_in(classes),
            sampling_rate_hz=sampling_rate,
            without=names_in(without) or (),
            window_s=window_s,
        )
    results = run_physics_ablation(
        tasks,
        ["recordings"] if data else names_in(conditions) or [],
        names_in(arms) or [],
        range(first_seed, first_seed + seeds),
        setting,
        out,
    )
    typer.echo(format_table(results))
    typer.echo(f"table.md, ablation.png and results.jsonl are in {out}")
