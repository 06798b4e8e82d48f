"""The lock of a home that `resight serve` holds, so that no cluster and no second process serves it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator

from model_store.errors import ClusterError, StorageError, StorageUnreachable
from model_store.storage_errors import is_full, storage_error
from serve.settings import Settings

LOCK = "server.lock"


@contextlib.contextmanager
def home_lock(settings: Settings, endpoint: str) -> Generator[None]:
    """Hold the lock; the file has the address for others. Raises ClusterError if another process holds it."""
    home = settings.home_path
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / LOCK).open("a+")
    except OSError as error:
        raise unusable_home(settings, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"'resight serve' serves {home} already, at {served_at(settings)}: stop it with Ctrl-C or SIGTERM"
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "endpoint": endpoint}))
        file.flush()
        yield


def unusable_home(settings: Settings, error: OSError) -> StorageError:
    if is_full(error):
        return storage_error(f"use {settings.home_path} as the home", error)
    return StorageUnreachable(
        f"cannot use {settings.home_path} as the home: {error}; set RESIGHT_HOME to a folder that you can write to"
    )


def served_at(settings: Settings) -> str:
    """Return the address at which 'resight serve' serves this home, or an empty text."""
    try:
        with (settings.home_path / LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return ""
            except BlockingIOError:
                return str(json.loads(file.read())["endpoint"])
    except (OSError, ValueError, KeyError):
        return ""
