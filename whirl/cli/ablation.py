"""`whirl study`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from whirl.cli.errors import names_in, report_errors

study = typer.Typer(help="Experiments with paired runs and controls.", no_args_is_help=True)


@study.command("physics")
@report_errors
def study_physics(
    data: Annotated[Path | None, typer.Argument(help="Folder of recordings; none simulates journal bearings.")] = None,
    arms: Annotated[
        str, typer.Option(help="Arms to run beside ce.")
    ] = "physics,unlabelled,random_bands,scrambled,features,features+physics,evidence,rule",
    conditions: Annotated[str, typer.Option(help="Of simulated bearings: few, speed_shift, noise.")] = "few",
    labels: Annotated[int, typer.Option(help="Labelled windows of each class; 0 takes all.")] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each arm.")] = 10,
    first_seed: Annotated[int, typer.Option(help="Seed of the first run.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the unlabelled windows.")] = 10,
    weight: Annotated[float, typer.Option(help="Lambda of the frequency term.")] = 1.0,
    form: Annotated[str, typer.Option(help="log, linear, set or kl.")] = "log",
    trust: Annotated[bool, typer.Option(help="Correct the physics by the labelled windows.")] = True,
    network: Annotated[str, typer.Option(help="The network, or the waveform's part of it.")] = "wdcnn",
    bearing: Annotated[str | None, typer.Option(help="Rolling bearing of DATA, e.g. 6205.")] = None,
    channels: Annotated[str | None, typer.Option(help="Channels to use, e.g. DE.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to use.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz of files that do not say theirs.")] = None,
    without: Annotated[str | None, typer.Option(help="Specimens of DATA to leave out.")] = None,
    window_s: Annotated[float, typer.Option(help="Length of DATA's windows in seconds.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the results; goes on where it was stopped.")] = Path("study"),
) -> None:
    """Measure what physics adds to cross entropy, beside controls that should add nothing."""
    from whirl.experiments import physics_ablation as study

    logging.getLogger("whirl.training").setLevel(logging.WARNING)  # hundreds of trainings, not one
    setting = study.StudySetting(
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
    names = ["recordings"] if data else names_in(conditions) or []
    if data is None:
        tasks = study.study_simulated(setting)
    else:
        tasks = study.study_folder(
            data,
            setting,
            channels=names_in(channels),
            classes=names_in(classes),
            sampling_rate_hz=sampling_rate,
            without=names_in(without) or (),
            window_s=window_s,
        )
    results = study.study_physics(
        tasks,
        names,
        names_in(arms) or [],
        range(first_seed, first_seed + seeds),
        setting,
        out,
    )
    typer.echo(study.table(results))
    typer.echo(f"table.md, study.png and results.jsonl are in {out}")
