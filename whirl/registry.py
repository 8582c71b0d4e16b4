"""Things by name: one registry class for networks, readers and whatever else users can add."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from whirl.validation import check_name

Entry = TypeVar("Entry", bound=Callable[..., Any])


class Registry(Generic[Entry]):
    """Maps names to classes or functions; built-in ones are imported when first used.

    Args:
        kind: what the names stand for, e.g. `"model"`; used in messages.
        built_in: names of built-in entries and the modules that register them.

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

    def __init__(self, kind: str, built_in: Mapping[str, str] | None = None) -> None:
        self.kind = kind
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
        if name not in self._entries:
            importlib.import_module(self._built_in[name])
        return self._entries[name]

    def check(self, name: str) -> None:
        """Raise ValueError if no entry has this name."""
        check_name(self.kind, name, self.names())

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted({*self._built_in, *self._entries})

    def _is_taken(self, name: str, entry: Entry) -> bool:
        if self._built_in.get(name, entry.__module__) != entry.__module__:
            return True
        known = self._entries.get(name, entry)
        return (known.__module__, known.__qualname__) != (entry.__module__, entry.__qualname__)
