"""`whirl config`: the settings as YAML, as a JSON schema and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from whirl.cli.errors import report_errors
from whirl.cli.options import TRAINING_SECTIONS, with_settings_options

config = typer.Typer(help="Show the settings.", no_args_is_help=True)


@config.command("show")
@with_settings_options(*TRAINING_SECTIONS, "search")
@report_errors
def show(
    settings: dict[str, Any],
    file: Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")] = None,
) -> None:
    """Print the settings as YAML, with those of a file and of options, for `whirl train --config`."""
    from whirl.runs.config_files import load_config, to_yaml

    typer.echo(to_yaml(load_config(file, settings), all_sections=True), nl=False)


@config.command("schema")
@report_errors
def schema() -> None:
    """Print the JSON schema of the YAML files, for editors."""
    from whirl.runs.settings_page import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@config.command("page")
@report_errors
def page() -> None:
    """Print the page of all settings in Markdown."""
    from whirl.runs.settings_page import settings_page

    typer.echo(settings_page(), nl=False)
