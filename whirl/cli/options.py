"""Options of the command, made from the descriptions of the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import typer

from whirl.cli.errors import names_in
from whirl.runs.config import Config
from whirl.runs.flat import FlatSetting, flat_settings

TRAINING_SECTIONS = ("data", "split", "model", "input", "training", "physics", "evaluation", "run")


def with_settings_options(
    *sections: str, config_class: type[Config] = Config
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for every setting of some sections to a command, which gets them as `settings`, by flat name.

    Args:
        *sections: names of sections.
        config_class: the configuration that holds them.
    """
    offered = [flat for flat in flat_settings(config_class).values() if flat.path[0] in sections and flat.flag]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(inspect.unwrap(command), include_extras=True)
        parameters = inspect.signature(command).parameters.values()
        own = [p.replace(annotation=hints[p.name]) for p in parameters if p.name != "settings"]
        made = [_parameter(flat, config_class) for flat in offered]

        def run(**values: Any) -> None:
            given = {flat.name: values.pop(flat.name) for flat in offered}
            command(**values, settings=parse_options(given, {flat.name: flat for flat in offered}))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(flat: FlatSetting, config_class: type[Config]) -> inspect.Parameter:
    is_switch = flat.info.annotation is bool
    flags = f"{flat.flag}/--no-{flat.flag.removeprefix('--')}" if is_switch else flat.flag
    option = typer.Option(
        flags, help=_help(flat), metavar=None if is_switch else flat.metavar, rich_help_panel=_panel(flat, config_class)
    )
    kind = bool if is_switch else str
    return inspect.Parameter(
        flat.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _panel(flat: FlatSetting, config_class: type[Config]) -> str:
    section: Any = config_class.model_fields[flat.path[0]].annotation
    return section.__doc__.strip().rstrip(".")


def _help(flat: FlatSetting) -> str:
    # Rich would read brackets as markup.
    return f"{flat.text} {flat.default_text}".rstrip().replace("[", "\\[")


def parse_options(values: Mapping[str, Any], known: Mapping[str, FlatSetting]) -> dict[str, Any]:
    """Turn the text of options into values for `make_config`; options that were not given are left out."""
    return {name: _parse(known[name], value) for name, value in values.items() if value is not None}


def _parse(flat: FlatSetting, text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if flat.about.kind == "names":
        return text if text in ("drawn", "multi") else names_in(text)
    if flat.about.kind == "LOW,HIGH" and "," in text:
        return names_in(text)
    if flat.about.kind in ("YAML", "name or policy") and text[:1] in "[{":
        import yaml

        return yaml.safe_load(text)
    return text
