"""Messages for settings that pydantic rejects, in the form "name is value, expected ..."."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from whirl.runs.descriptions import about
from whirl.runs.flat import FlatSetting, flat_settings, get_nested, unknown_setting
from whirl.runs.sections import SimulationSection
from whirl.validation import nearest_name, unknown_name

_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", dict: "a mapping"}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_MAX_SHOWN = 200  # characters of a value


def explain(error: Mapping[str, Any], nested: Mapping[str, Any], config_class: type[Any]) -> str:
    """Format the message for an error of pydantic.

    Args:
        error: one of `ValidationError.errors()`.
        nested: the settings that were validated, in sections.
        config_class: their configuration.
    """
    message = error["msg"].removeprefix("Value error, ")
    path = _without_tag(tuple(str(part) for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        return _misplaced(path[-1], path[:-1], config_class)
    found = _setting_at(path, config_class)
    if found is None:
        if error["type"] in ("model_type", "model_attributes_type"):
            return f"{'.'.join(path)} is {_shown(error['input'])}, expected a mapping of settings"
        return message
    name, location, info = found
    if error["type"] == "missing" and path == location:
        return f"{name} is required"
    try:
        value = get_nested(nested, location)
    except (KeyError, TypeError):
        value = error["input"]
    return _reworded(name, value, message) if error["type"] == "value_error" else _invalid(name, value, info)


def _without_tag(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the location of an error without the tag of the training method."""
    return path[:2] + path[3:] if path[:2] == ("training", "method") else path


def _setting_at(path: tuple[str, ...], config_class: type[Any]) -> tuple[str, tuple[str, ...], Any] | None:
    """Return name, location and field of the setting that contains a path; None if it is a section."""
    for flat in flat_settings(config_class).values():
        if path[: len(flat.path)] == flat.path:
            return _within(flat, path)
    return None


def _within(flat: FlatSetting, path: tuple[str, ...]) -> tuple[str, tuple[str, ...], Any]:
    inner = path[len(flat.path) : len(flat.path) + 1]
    if flat.about.kind == "section" and inner and inner[0] in SimulationSection.model_fields:
        return f"{flat.name}.{inner[0]}", flat.path + inner, SimulationSection.model_fields[inner[0]]
    return flat.name, flat.path, flat.info


def _reworded(name: str, value: Any, message: str) -> str:
    """Add the name of the setting and its value to a validator's message, unless it has them."""
    if message.startswith(("unknown ", f"{name} is ")):
        return message
    if message.startswith("expected "):
        return f"{name} is {_shown(value)}, {message}"
    return f"{name}: {message}" if repr(value) in message else f"{name}: {message}, got {_shown(value)}"


def _invalid(name: str, value: Any, info: Any) -> str:
    kinds = list(_alternatives(info.annotation))
    if isinstance(value, str) and len(kinds) == 1 and get_origin(kinds[0]) is Literal:
        return unknown_name(name, value, get_args(kinds[0]))
    return f"{name} is {_shown(value)}, expected {expectation(info)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def expectation(info: Any) -> str:
    """Return the values that a field accepts, in words.

    Example:
        >>> from whirl.runs.sections import DataSection, TrainingSection
        >>> expectation(TrainingSection.model_fields["epochs"])
        'an integer >= 1 and <= 1000000'
        >>> expectation(DataSection.model_fields["band_limit_hz"])
        "a number or 'off'"
    """
    if about(info).kind == "method":
        return "the name of a trainer"
    kinds = " or ".join(map(_words, _alternatives(info.annotation)))
    bounds = [
        f"{sign} {limit:g}" if isinstance(limit, float) else f"{sign} {limit}"
        for item in info.metadata
        for bound, sign in _BOUNDS.items()
        if (limit := getattr(item, bound, None)) is not None
    ]
    return f"{kinds} {' and '.join(bounds)}".rstrip()


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Iterate over the members of a union, without annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


def _words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        choices = list(map(repr, get_args(kind)))
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin is list:
        return "a list of names" if get_args(kind)[0] is str else "a list of pairs"
    if origin is tuple:
        return "two numbers"
    return _KINDS.get(origin or kind, "a mapping of settings")


def _misplaced(name: str, parents: tuple[str, ...], config_class: type[Any]) -> str:
    known = flat_settings(config_class)
    found = known.get(name)
    if found is not None and found.path[:-1] != parents:
        return f"unknown key {name!r}; it belongs in section {'.'.join(found.path[:-1])}"
    if not parents and nearest_name(name, [*config_class.model_fields, *known]) not in known:
        return unknown_name("section", name, list(config_class.model_fields))
    if "simulation" in parents:
        return unknown_name("setting", name, list(SimulationSection.model_fields))
    return unknown_setting(name, config_class)
