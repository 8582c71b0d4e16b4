"""The name under which whirl is distributed, its version, and how to install its optional dependencies."""

# `whirl` on PyPI is another project: never advise installing that name.
DISTRIBUTION = "whirl-diagnostics"


def install_hint(extra: str) -> str:
    """The command that installs an optional dependency.

    Args:
        extra: name of the extra in `pyproject.toml`.

    Example:
        >>> install_hint("search")
        "pip install 'whirl-diagnostics[search]'"
    """
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def installed_version() -> str:
    """The version of whirl that is installed."""
    from importlib.metadata import version

    return version(DISTRIBUTION)
