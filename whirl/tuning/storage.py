"""Storages of studies, and retries while a storage is temporarily unavailable."""

from __future__ import annotations

import logging
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from whirl._distribution import install_hint

logger = logging.getLogger(__name__)

T = TypeVar("T")
Storage = Any

HIDDEN = "***"
RETRY_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0


def import_optuna() -> Any:
    """Import Optuna, which is an optional dependency.

    Raises:
        ImportError: Optuna is not installed; the message says how to install it.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"this search requires Optuna; install it with: {install_hint('search')}") from error
    return optuna


def open_storage(storage: str | Path | None) -> Storage:
    """Open a storage of studies.

    Args:
        storage: None for in memory; a path for an Optuna journal in one file, which may be on a shared file system;
            the URL of a database, e.g. `sqlite:///study.db` or `postgresql://user:password@host/name`; or
            `grpc://host:port` for Optuna's proxy in front of a database.

    Raises:
        StorageError: the file is not a journal, or is corrupt (an `OSError`); it is not modified.
        OSError: the storage cannot be read or written, or its server does not respond.
        TimeoutError: other processes keep the file locked (an `OSError`).
        ValueError: the URL is malformed.
        ImportError: an optional dependency is not installed.

    Example:
        >>> type(open_storage(None)).__name__
        'InMemoryStorage'
    """
    optuna = import_optuna()
    if storage is None:
        return optuna.storages.InMemoryStorage()
    scheme, separator, rest = str(storage).partition("://")
    if not separator:
        return _open_journal(Path(storage))
    return _open_proxy(rest) if scheme == "grpc" else _open_database(str(storage))


def _open_journal(path: Path) -> Storage:
    from whirl.tuning.journal import Journal, StorageError

    try:
        return import_optuna().storages.JournalStorage(Journal(path))
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise StorageError(
            f"{path} cannot be read as the journal of a study: {type(error).__name__}: {error}"
        ) from error
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise type(error)(f"a study cannot be stored in {path}: {error}") from error


def _open_database(url: str) -> Storage:
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
    except ImportError as error:
        raise ImportError(
            f"a study in a database requires SQLAlchemy; install it with: {install_hint('search')}"
        ) from error
    try:
        shown = make_url(url).render_as_string(hide_password=True)
        options = {"connect_args": {"timeout": RETRY_TIMEOUT_S / 2}} if url.startswith("sqlite") else {}
        for last in (False, False, False, True):
            try:
                return import_optuna().storages.RDBStorage(url, engine_kwargs=options)
            except DBAPIError:  # e.g. two workers create the same tables at once
                if last:
                    raise
                time.sleep(random.uniform(0.1, 0.5))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ValueError(f"storage {url.partition('://')[0]}://... is not the URL of a database: {error}") from error
    except ImportError as error:
        raise ImportError(f"the driver of {shown} is not installed: {error.__cause__ or error}") from error
    except (SQLAlchemyError, import_optuna().exceptions.OptunaError, RuntimeError) as error:
        cause = str(getattr(error, "orig", error)).partition("\n")[0]
        raise OSError(f"the database {shown} cannot be used: {cause}") from error


def _open_proxy(address: str) -> Storage:
    import warnings

    optuna = import_optuna()
    host, _, port = address.rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"storage is grpc://{address}, expected grpc://host:port, e.g. grpc://localhost:13000")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
        proxy.wait_server_ready(timeout=CONNECT_TIMEOUT_S)
    except ImportError as error:
        raise ImportError(
            f"a study behind a gRPC proxy requires grpcio and protobuf; install them with: {install_hint('search')}"
        ) from error
    except ConnectionError as error:
        raise ConnectionError(
            f"no gRPC proxy of Optuna responded at {host}:{port} within {CONNECT_TIMEOUT_S:g} s"
        ) from error
    return proxy


def redact_password(storage: str | Path | None) -> str:
    """Return the name of a storage with the password replaced, for logs and files.

    Example:
        >>> redact_password("postgresql://me:secret@host/name")
        'postgresql://me:***@host/name'
    """
    return re.sub(r"(://[^:/@]*):[^@]*@", rf"\1:{HIDDEN}@", str(storage))


def retry(function: Callable[[], T], timeout_s: float | None = None) -> T:
    """Call a function, with exponential back-off while the storage is unavailable.

    Args:
        function: called without arguments.
        timeout_s: time in seconds after which an error is raised; None for 60 s.

    Raises:
        OSError: the storage was unavailable for `timeout_s`, or is unusable.
    """
    started, pause_s = time.monotonic(), 0.05
    timeout_s = RETRY_TIMEOUT_S if timeout_s is None else timeout_s
    while True:
        try:
            return function()
        except storage_errors() as error:
            if type(error).__name__ == "StorageError" or time.monotonic() - started > timeout_s:
                raise (
                    error if isinstance(error, OSError) else OSError(f"the study's storage failed: {error}")
                ) from error
            logger.debug("the study's storage failed, retrying: %s", error)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)


def storage_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that storages raise while unavailable; they never stem from a trial."""
    grpc = sys.modules.get("grpc")  # can raise only if it was imported
    errors = (OSError, import_optuna().exceptions.StorageInternalError)
    return errors if grpc is None else (*errors, grpc.RpcError)
