"""Settings by flat name, as used on the command line and as Python keywords, and their location in the sections."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from whirl.runs.descriptions import About, about
from whirl.runs.methods import METHODS, RegisteredMethod
from whirl.validation import nearest_name, unknown_name


@dataclass(frozen=True)
class FlatSetting:
    """A setting under the name used on the command line and as Python keyword.

    Attributes:
        name: flat name, e.g. `lr`.
        path: location in the sections, e.g. `("training", "lr")`.
        info: pydantic field.
        about: further description of the field.
        method: training method that the setting belongs to; empty: all.
        group: title of its section.
    """

    name: str
    path: tuple[str, ...]
    info: Any
    about: About
    method: str = ""
    group: str = ""

    @property
    def flag(self) -> str:
        """Option on the command line; empty if there is none."""
        return f"--{self.name.replace('_', '-')}" if self.about.flag is None else self.about.flag

    @property
    def text(self) -> str:
        """Description in one sentence, with the unit and the trainer that the setting belongs to."""
        text = self.info.description or "Training method."
        unit = f" ({self.about.unit})" if self.about.unit else ""
        owner = f" For trainer {self.method}." if self.method not in ("", "registered") else ""
        return f"{text.rstrip('.')}{unit}.{owner}"

    @property
    def default_text(self) -> str:
        """Default value in brackets; empty if there is none to show."""
        default = "plain" if self.name == "trainer" else self.info.default
        if self.info.is_required():
            return "" if self.method else "[required]"
        if isinstance(default, BaseModel) or (default in (None, []) and not self.about.auto):
            return ""
        if isinstance(default, bool):
            default = "on" if default else "off"
        if isinstance(default, (list, tuple)):
            default = ",".join(map(str, default))
        return f"[default: {self.about.auto if default is None else default}]"

    @property
    def metavar(self) -> str:
        """Form of the value, e.g. FLOAT or ce|focal."""
        annotation = self.info.annotation
        if self.about.kind:
            return self.about.kind.upper() if self.about.kind.islower() else self.about.kind
        if get_origin(annotation) is Literal:
            return "|".join(map(str, get_args(annotation)))
        if self.about.choices is not None:
            return "NAME"
        kinds = (annotation, *get_args(annotation))
        return next(
            (name for kind, name in ((bool, "on|off"), (int, "INT"), (float, "FLOAT")) if kind in kinds), "TEXT"
        )

    def parse(self, text: Any) -> Any:
        """Convert the text of an option to the form of a YAML file; numbers remain text.

        Example:
            >>> from whirl.runs.config import Config
            >>> flat_settings(Config)["channels"].parse("DE, FE")
            ['DE', 'FE']
        """
        if not isinstance(text, str) or text in ("drawn", "multi", "off"):
            return text
        if self.about.kind == "names" or (self.about.kind == "LOW,HIGH" and "," in text):
            return [name.strip() for name in text.split(",") if name.strip()]
        if self.about.kind in ("YAML", "name or policy") and text[:1] in "[{":
            import yaml

            try:
                return yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(f"{self.name}: {text!r} is not valid YAML ({' '.join(str(error).split())})") from None
        return text


def flat_settings(config_class: type[Any]) -> dict[str, FlatSetting]:
    """List every setting by its flat name, in the order of the sections.

    Example:
        >>> from whirl.runs.config import Config
        >>> flat_settings(Config)["lr"].path
        ('training', 'lr')
    """
    found = [
        flat for name, info in config_class.model_fields.items() for flat in settings_of_section(name, info.annotation)
    ]
    return {flat.name: flat for flat in found}


def settings_of_section(section: str, model: Any) -> Iterator[FlatSetting]:
    """Iterate over the settings of one section.

    Args:
        section: name of the section.
        model: its class.
    """
    group = model.__doc__.strip().rstrip(".")
    for name, info in model.model_fields.items():
        facts = about(info)
        if facts.kind == "method":
            yield from _of_methods((section, name), info, group)
        else:
            yield FlatSetting(facts.name or name, (section, name), info, facts, group=group)


def _of_methods(path: tuple[str, ...], info: Any, group: str) -> Iterator[FlatSetting]:
    facts = About("trainer", choices=lambda: list(METHODS), kind="name", synonyms=("method",))
    yield FlatSetting("trainer", (*path, "kind"), info, facts, group=group)
    for kind, model in (*METHODS.items(), ("registered", RegisteredMethod)):
        for name, inner in model.model_fields.items():
            if name != "kind":
                facts = about(inner)
                yield FlatSetting(facts.name or name, (*path, name), inner, facts, kind, group)


def walk(config: Any) -> Iterator[tuple[FlatSetting, Any]]:
    """Iterate over the settings that apply to a configuration, with their values."""
    kind = config.training.method.kind
    kind = kind if kind in METHODS else "registered"
    for flat in flat_settings(type(config)).values():
        if flat.method in ("", kind):
            value: Any = config
            for name in flat.path:
                value = getattr(value, name)
            yield flat, value


def to_flat(config: Any) -> dict[str, Any]:
    """Return the settings by flat name, as plain data, without those that are not set.

    Example:
        >>> from whirl.runs.config import make_config
        >>> to_flat(make_config({"lr": 0.01}))["lr"]
        0.01
    """
    nested = config.model_dump(mode="json", exclude_none=True)
    return {flat.name: get_nested(nested, flat.path) for flat, value in walk(config) if value is not None}


def get_setting(config: Any, name: str) -> Any:
    """Return the value of a setting by its flat name; None if it is not set or does not apply."""
    return next((value for flat, value in walk(config) if flat.name == name), None)


def get_nested(nested: Any, path: tuple[str, ...]) -> Any:
    """Follow a path through nested mappings."""
    for name in path:
        nested = nested[name]
    return nested


def from_flat(settings: Mapping[str, Any], config_class: type[Any]) -> dict[str, Any]:
    """Convert settings by flat name to nested sections; values of None are omitted.

    Raises:
        ValueError: a name is unknown, or settings of two training methods are given.

    Example:
        >>> from whirl.runs.config import Config
        >>> from_flat({"lr": 0.1, "teacher": "runs/a"}, Config)
        {'training': {'lr': 0.1, 'method': {'teacher': 'runs/a', 'kind': 'distilled'}}}
    """
    known = flat_settings(config_class)
    given = {name: value for name, value in settings.items() if value is not None}
    nested: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(unknown_setting(name, config_class))
        if name != "trainer":
            _set(nested, known[name].path, value)
    kind = _method_of(given, known)
    if kind is not None:
        _set(nested, known["trainer"].path, kind)
    return nested


def _set(nested: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        nested = nested.setdefault(name, {})
    nested[path[-1]] = value


def _method_of(given: Mapping[str, Any], known: Mapping[str, FlatSetting]) -> str | None:
    """Return the training method that the settings imply, if any."""
    owners = {known[name].method: name for name in reversed(list(given)) if known[name].method}
    stated = given.get("trainer")
    if len(owners) > 1:
        first, second = list(owners.values())[-1], list(owners.values())[-2]
        raise ValueError(f"{first} and {second} are mutually exclusive: they belong to different trainers")
    for owner, name in owners.items():
        if owner == "registered" and stated in METHODS:
            raise ValueError(f"{name} requires a trainer that a plug-in has registered (got {stated!r})")
        if stated is not None and owner not in (stated, "registered"):
            raise ValueError(f"{name} requires trainer {owner!r} (got {stated!r})")
        return stated or owner
    return stated


def unknown_setting(name: str, config_class: type[Any]) -> str:
    """Format the message for an unknown setting, with the nearest one by synonym or spelling.

    Example:
        >>> from whirl.runs.config import Config
        >>> unknown_setting("learning_rate", Config)
        "unknown setting 'learning_rate'; did you mean 'lr'?"
    """
    known = flat_settings(config_class)
    words = {word: flat.name for flat in known.values() for word in (flat.name, *flat.about.synonyms)}
    close = words.get(name) or words.get(nearest_name(name, list(words)) or "")
    if close is None:
        return unknown_name("setting", name, list(known))
    return f"unknown setting {name!r}; did you mean {close!r}?"


def unknown_option(flag: str, flags: Collection[str], config_class: type[Any]) -> str:
    """Format the message for an unknown option of a command, with the nearest one by synonym or spelling.

    Args:
        flag: the unknown option.
        flags: the options of the command.
        config_class: configuration whose settings have synonyms.

    Example:
        >>> from whirl.runs.config import Config
        >>> unknown_option("--learning-rate", ["--lr", "--out"], Config)
        'no such option: --learning-rate; did you mean --lr?'
    """
    words = {known.strip("-").replace("-", "_"): known for known in flags}
    for flat in flat_settings(config_class).values():
        if flat.flag in flags:
            words |= dict.fromkeys((flat.name, *flat.about.synonyms), flat.flag)
    name = flag.strip("-").replace("-", "_")
    near = words.get(name) or words.get(nearest_name(name, list(words)) or "")
    return f"no such option: {flag}" + (f"; did you mean {near}?" if near else "")
