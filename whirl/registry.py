"""Registries: one class for networks, readers, losses and everything else that users can add by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from whirl.validation import check_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Entry = TypeVar("Entry", bound=Callable[..., Any])


class Registry(Generic[Entry]):
    """Maps names to classes or functions.

    Built-in entries, and those that installed packages declare as entry points, are imported when first used.

    Args:
        kind: kind of the registered objects, e.g. `"model"`; used in messages.
        built_in: names of built-in entries and the modules that register them.
        group: group of entry points by which installed packages join, e.g. `"whirl.models"`; None: they cannot.

    Example:
        >>> shapes = Registry("shape")
        >>> @shapes.register("square")
        ... def square(side):
        ...     return side**2
        >>> shapes.get("square")(3), shapes.names()
        (9, ['square'])
        >>> shapes.get("sqare")
        Traceback (most recent call last):
        ValueError: unknown shape 'sqare'; did you mean 'square'? Expected one of: square
    """

    def __init__(self, kind: str, built_in: Mapping[str, str] | None = None, group: str | None = None) -> None:
        self.kind, self.group = kind, group
        self._built_in = dict(built_in or {})
        self._entries: dict[str, Entry] = {}

    def register(self, *names: str) -> Callable[[Entry], Entry]:
        """Return a decorator that adds a class or function under `names`.

        Running the same definition again, as a notebook does, replaces it.

        Raises:
            ValueError: another definition has one of the names.
        """

        def add(entry: Entry) -> Entry:
            for name in names:
                if self._is_taken(name, entry):
                    raise ValueError(f"a {self.kind} named {name!r} already exists; choose another name")
            self._entries.update(dict.fromkeys(names, entry))
            return entry

        return add

    def get(self, name: str) -> Entry:
        """Return the entry of that name.

        Raises:
            ValueError: no entry has this name; the message suggests the nearest one.
        """
        self.check(name)
        if name in self._built_in and name not in self._entries:
            importlib.import_module(self._built_in[name])
        if name not in self._entries:
            self._entries[name] = self._entry_points[name].load()
        return self._entries[name]

    def check(self, name: str) -> None:
        """Raise ValueError if no entry has this name."""
        check_name(self.kind, name, self.names())

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted({*self._built_in, *self._entries, *self._entry_points})

    def origin(self, name: str) -> str | None:
        """Return the installed package that provides an entry, or None if none does."""
        point = self._entry_points.get(name)
        return point.dist.name if point is not None and point.dist is not None else None

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.group)} if self.group else {}

    def _is_taken(self, name: str, entry: Entry) -> bool:
        if self._built_in.get(name, entry.__module__) != entry.__module__:
            return True
        known = self._entries.get(name, entry)
        return (known.__module__, known.__qualname__) != (entry.__module__, entry.__qualname__)


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules whose classes and functions join the registries; the current folder is searched as well.

    Args:
        modules: names of modules, e.g. `"my_networks"`.

    Raises:
        ValueError: a module does not exist, or fails to import.
    """
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"cannot import the plug-in module {name!r}: expected a module name, e.g. my_networks")
        sys.path.append(str(Path.cwd()))
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ValueError(f"cannot import the plug-in module {name!r}: {type(error).__name__}: {error}") from error
        finally:
            sys.path.pop()
