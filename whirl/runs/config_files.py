"""Configurations in YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from whirl.runs.config import AnyConfig, Config, make_config, parse_config
from whirl.runs.flat import flat_settings, get_nested, walk

_MAX_CHARS = 100_000  # of a file of settings


class _PlainLoader(yaml.SafeLoader):
    """Reads no aliases: a few lines of them can unfold to more values than fit in memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated values in full, for `_PlainLoader`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; nothing in it is executed.

    Raises:
        ValueError: there is no such file, or it holds no mapping of names to values.
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
    odd = [name for name in settings if not isinstance(name, str)]
    if odd:
        raise ValueError(f"{path}: unknown setting {odd[0]!r}; names are words")
    return settings


def to_yaml(config: Config, *, all_sections: bool = False) -> str:
    """Format a configuration as the YAML that `whirl train --config` takes.

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
    """Make a configuration from a YAML file of sections, if any, and options by flat name, which win.

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
    """The settings that a file states, by flat name."""
    nested = config.model_dump(mode="json", exclude_unset=True)
    found = {}
    for flat, _ in walk(config):
        try:
            found[flat.name] = get_nested(nested, flat.path)
        except KeyError:
            continue
    return found


def _overridden(options: Mapping[str, Any], in_file: Config) -> set[str]:
    """Settings of the file's way of training, where the options state another one."""
    known = flat_settings(type(in_file))
    kinds = {known[name].method for name in options if name in known and known[name].method}
    kinds |= {options["trainer"]} if options.get("trainer") else set()
    if not kinds or in_file.training.method.kind in kinds:
        return set()
    return {name for name, flat in known.items() if flat.method or name == "trainer"}


def write_config(path: Path, config: Config) -> None:
    """Write a configuration as YAML that `whirl train --config` takes."""
    from whirl.engine.files import write_text

    write_text(path, to_yaml(config))
