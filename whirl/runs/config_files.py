"""Configurations in YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from whirl.runs.config import AnyConfig, Config, make_config, parse_config
from whirl.runs.flat import flat_settings, get_nested, walk

_MAX_CHARS = 100_000  # of a file of settings
_MAX_BRACKETS = 50  # within each other; the scanner takes quadratic time


class _PlainLoader(yaml.SafeLoader):
    """Loader that rejects deep nesting, and aliases: a few lines of them can expand to more than fits in memory."""

    def fetch_flow_collection_start(self, *args: Any) -> None:
        if self.flow_level == _MAX_BRACKETS:
            raise yaml.MarkedYAMLError(problem="brackets are nested too deeply", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(*args)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _PlainDumper(yaml.SafeDumper):
    """Dumper that writes repeated values in full, for `_PlainLoader`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a YAML file, without executing anything in it.

    Raises:
        ValueError: the file does not exist, or does not contain a mapping of names to values.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would block
            raise ValueError("it is not a regular file")
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_CHARS + 1)
        if len(text) > _MAX_CHARS:
            raise ValueError(f"it has more than {_MAX_CHARS} characters")
        settings = yaml.load(text, _PlainLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected 'name: value' lines, found {type(settings).__name__}")
    invalid = [name for name in settings if not isinstance(name, str)]
    if invalid:
        raise ValueError(f"{path}: unknown setting {invalid[0]!r}; names are strings")
    return settings


def to_yaml(config: Config, *, all_sections: bool = False) -> str:
    """Format a configuration as YAML for `whirl train --config`.

    Args:
        config: the configuration.
        all_sections: include the section of the search.
    """
    nested = config.model_dump(mode="json", exclude_none=True)
    if not config.data.is_simulated:
        nested["data"].pop("simulation")
    if not all_sections:
        nested.pop("search")
    return yaml.dump(nested, Dumper=_PlainDumper, sort_keys=False)


def load_config(
    path: str | Path | None, options: Mapping[str, Any], config_class: type[AnyConfig] = Config
) -> AnyConfig:
    """Make a configuration from an optional YAML file of sections, and options by flat name, which override it.

    Raises:
        ValueError: the file cannot be read, a name is unknown or a value is out of range.
    """
    if path is None:
        return make_config(options, "options", config_class)
    in_file = parse_config(read_yaml(path), str(path), config_class)
    merged = {name: value for name, value in _stated(in_file).items() if name not in _overridden(options, in_file)}
    return make_config(merged | dict(options), str(path), config_class)


def stated_settings(path: str | Path | None, options: Mapping[str, Any]) -> list[str]:
    """List the flat names of the settings that a file and options state."""
    in_file = {} if path is None else _stated(parse_config(read_yaml(path), str(path)))
    return list(dict.fromkeys([*in_file, *(name for name, value in options.items() if value is not None)]))


def _stated(config: Config) -> dict[str, Any]:
    """Return the settings that a file states, by flat name."""
    nested = config.model_dump(mode="json", exclude_unset=True)
    stated = {}
    for flat, _ in walk(config):
        try:
            stated[flat.name] = get_nested(nested, flat.path)
        except KeyError:
            continue
    return stated


def _overridden(options: Mapping[str, Any], in_file: Config) -> set[str]:
    """Return the settings of the file's training method if the options state another one."""
    known = flat_settings(type(in_file))
    kinds = {known[name].method for name in options if name in known and known[name].method}
    kinds |= {options["trainer"]} if options.get("trainer") else set()
    if not kinds or in_file.training.method.kind in kinds:
        return set()
    return {name for name, flat in known.items() if flat.method or name == "trainer"}


def write_config(path: Path, config: Config) -> None:
    """Write a configuration as YAML for `whirl train --config`."""
    from whirl.engine.files import write_text

    write_text(path, to_yaml(config))
