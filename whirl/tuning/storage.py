"""Where studies are kept, and how a storage that refuses for a while is borne."""

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
PATIENCE_S = 60.0
CONNECT_S = 10.0


def import_optuna() -> Any:
    """Optuna, which is imported when it is needed.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"a Bayesian search needs Optuna: {install_hint('search')}") from error
    return optuna


def open_storage(storage: str | Path | None) -> Storage:
    """Open where studies are kept.

    Args:
        storage: None: in memory; a path: Optuna's journal in one file, which may lie on a shared file system; a
            database's URL, e.g. `sqlite:///study.db` or `postgresql://user:password@host/name`;
            `grpc://host:port`: Optuna's proxy in front of a database.

    Raises:
        StorageError: the file is not a journal, or is corrupted (an `OSError`); it is left as it is.
        OSError: it cannot be read or written, or who serves it does not answer.
        TimeoutError: others keep it locked (an `OSError`).
        ValueError: the URL is malformed.
        ImportError: an extra is missing.

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
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise StorageError(f"{path} cannot be read as a study's journal: {type(error).__name__}: {error}") from error
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise type(error)(f"a study cannot be kept in {path}: {error}") from error


def _open_database(url: str) -> Storage:
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
    except ImportError as error:
        raise ImportError(f"a study in a database needs SQLAlchemy: {install_hint('search')}") from error
    try:
        shown = make_url(url).render_as_string(hide_password=True)
        options = {"connect_args": {"timeout": PATIENCE_S / 2}} if url.startswith("sqlite") else {}
        for last in (False, False, False, True):
            try:
                return import_optuna().storages.RDBStorage(url, engine_kwargs=options)
            except DBAPIError:  # as when two workers make the same tables at the same time
                if last:
                    raise
                time.sleep(random.uniform(0.1, 0.5))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ValueError(f"storage {url.partition('://')[0]}://... is not a database's URL: {error}") from error
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
        raise ValueError(f"storage grpc://{address}: expected grpc://host:port, e.g. grpc://localhost:13000")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
        proxy.wait_server_ready(timeout=CONNECT_S)
    except ImportError as error:
        raise ImportError(f"a study behind a gRPC proxy needs grpcio and protobuf: {install_hint('search')}") from error
    except ConnectionError as error:
        raise ConnectionError(f"no gRPC proxy of Optuna answers at {host}:{port} within {CONNECT_S:g} s") from error
    return proxy


def redact_password(storage: str | Path | None) -> str:
    """What may be shown and written down of a storage's name.

    Example:
        >>> redact_password("postgresql://me:secret@host/name")
        'postgresql://me:***@host/name'
    """
    return re.sub(r"(://[^:/@]*):[^@]*@", rf"\1:{HIDDEN}@", str(storage))


def retry(do: Callable[[], T], patience_s: float | None = None) -> T:
    """Do it, again and again while the storage refuses.

    Raises:
        OSError: it has refused for too long, or will for ever.
    """
    begun, pause_s = time.monotonic(), 0.05
    patience_s = PATIENCE_S if patience_s is None else patience_s
    while True:
        try:
            return do()
        except storage_errors() as error:
            if type(error).__name__ == "StorageError" or time.monotonic() - begun > patience_s:
                raise error if isinstance(error, OSError) else OSError(f"the study's storage fails: {error}") from error
            logger.debug("the study's storage fails, trying again: %s", error)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)


def storage_errors() -> tuple[type[Exception], ...]:
    """What storages raise while they cannot be used; what is wrong with a trial is none of it."""
    grpc = sys.modules.get("grpc")  # its errors can only come where it is
    errors = (OSError, import_optuna().exceptions.StorageInternalError)
    return errors if grpc is None else (*errors, grpc.RpcError)
