"""Descriptions of settings: the fields and the base class of sections.

A field is created by `setting` with its default, description, unit, bounds and synonyms. The command line, the YAML
form, the JSON schema and the page of settings are generated from these descriptions. A field whose default is None is
chosen from the data when a run is prepared; `"off"`, `"unknown"` and similar strings are regular values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from whirl.data.names import DATASET_PREFIX
from whirl.validation import unknown_name

OFF = "off"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class About:
    """Description of a setting beyond what pydantic stores.

    Attributes:
        name: flat name, used on the command line and as Python keyword; empty: the name of the field.
        flag: option on the command line, e.g. `"--lr"`; None: derived from the flat name; empty: no option.
        unit: unit of the value.
        auto: how the value is chosen if the default is None.
        choices: function that lists the valid names.
        synonyms: other words for the setting, for "did you mean".
        kind: type as shown in `--help` and the docs; empty: derived from the annotation.
    """

    name: str = ""
    flag: str | None = None
    unit: str = ""
    auto: str = ""
    choices: Callable[[], Sequence[str]] | None = None
    synonyms: tuple[str, ...] = ()
    kind: str = ""


def setting(default: Any, description: str, about: About = About(), **bounds: Any) -> Any:
    """Describe one setting.

    Args:
        default: default value; None: chosen from the data.
        description: one sentence, for `--help`, the schema and the docs.
        about: further description.
        **bounds: `ge`, `gt`, `le` and `lt` of pydantic's `Field`.
    """
    extra: Any = {"unit": about.unit} if about.unit else None
    info: Any = Field(default, description=description, json_schema_extra=extra, **bounds)
    info.metadata.append(about)
    return info


def about(info: Any) -> About:
    """Return the `About` of a field."""
    return next((item for item in info.metadata if isinstance(item, About)), About())


class Section(BaseModel):
    """A group of settings: immutable, without unknown names or numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


def _absolute(folder: Any) -> Any:
    """Make a path absolute, so that a run can be evaluated from any working directory."""
    is_folder = isinstance(folder, (str, Path)) and folder not in (OFF, SIMULATED)
    return str(Path(folder).resolve()) if is_folder and not str(folder).startswith(DATASET_PREFIX) else folder


def not_empty(names: Any) -> Any:
    """Return a list of names; raise ValueError if it is empty or has duplicates."""
    if isinstance(names, (list, tuple)) and (not names or len(set(names)) < len(names)):
        raise ValueError("expected at least one name and no duplicates")
    return names


SIMULATED = "simulated"
Folder = Annotated[str, BeforeValidator(_absolute)]
Names = Annotated[list[str], AfterValidator(not_empty)]


def one_of(kind: str, name: Any, known: Any) -> Any:
    """Return a name; raise ValueError with the nearest known one if it is unknown."""
    if name not in known:
        raise ValueError(unknown_name(kind, name, list(known)))
    return name
