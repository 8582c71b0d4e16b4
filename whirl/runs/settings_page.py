"""The settings as a page in Markdown and as a JSON schema, made from their descriptions."""

from __future__ import annotations

from typing import Any

from whirl.runs.config import Config
from whirl.runs.flat import FlatSetting, flat_settings

ESCAPED = "\\|"
_HEAD = ("| option | keyword | YAML | value | |", "|---|---|---|---|---|")


def json_schema(config_class: type[Config] = Config) -> dict[str, Any]:
    """Return the JSON schema of the YAML form, for editors; settings without a default are optional."""
    return _without_null(config_class.model_json_schema())


def _without_null(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_null(value) for key, value in schema.items() if not (key == "default" and value is None)}
    return [_without_null(item) for item in schema] if isinstance(schema, list) else schema


def settings_page(config_class: type[Config] = Config) -> str:
    """Return all settings as tables in Markdown, a section each."""
    lines = [
        "# Settings",
        "",
        "<!-- Made by `whirl config page`; do not edit. -->",
        "",
        "Options of `whirl train`, keywords of `whirl.train`, and keys of the YAML file for `--config`. `whirl config",
        "show` prints them as YAML, `whirl config schema` as a JSON schema for editors.",
    ]
    for name, info in config_class.model_fields.items():
        section: Any = info.annotation
        lines += ["", f"## {section.__doc__.strip().rstrip('.')} (`{name}`)", "", *_HEAD]
        lines += [_row(flat) for flat in flat_settings(config_class).values() if flat.path[0] == name]
    return "\n".join(lines) + "\n"


def _row(flat: FlatSetting) -> str:
    option = f"`{flat.flag}`" if flat.flag else ""
    cells = (option, f"`{flat.name}`", f"`{'.'.join(flat.path)}`", flat.metavar, f"{flat.text} {flat.default_text}")
    return f"| {' | '.join(cell.strip().replace('|', ESCAPED) for cell in cells)} |"
