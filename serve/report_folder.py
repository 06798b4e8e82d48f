"""Write the files of a report into a new or empty folder, local or s3://.

folder = require_empty(out), before the work; write_file(folder, "index.html", …) for each file, the page last
reserved(out) also keeps other processes out until the work ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from model_store.errors import BadRequest, StorageError
from model_store.storage import Folder, absolute, is_local

RESERVED = ".reserved"


def require_empty(out: str) -> Folder:
    """Return the folder of a report. Raises BadRequest if it is not empty, before any work is done."""
    folder = Folder(absolute(out))
    if folder.names() or (folder.exists() and not folder.fs.isdir(folder.root)):
        raise BadRequest(f"{out} is not empty: use a new folder for the report")
    return folder


@contextlib.contextmanager
def reserved(out: str) -> Generator[Folder]:
    """Reserve the folder of a report. Without a report, it is afterwards as it was.

    Raises BadRequest if it is not empty, StorageUnreachable or StorageUnsafe if it cannot be written.
    """
    folder = require_empty(out)
    existed = folder.exists()
    try:
        folder.create(RESERVED, b"")
    except FileExistsError:
        raise BadRequest(f"{out} is used by another process: use a new folder for the report") from None
    try:
        yield folder
    finally:
        with contextlib.suppress(Exception):  # must not hide the error of the work
            folder.remove(RESERVED)
            if is_local(folder.url) and not existed:
                Path(folder.root).rmdir()  # fails if there is a report


def write_file(folder: Folder, name: str, data: bytes | str) -> None:
    """Write a file of a report. Raises BadRequest that names it."""
    try:
        folder.write(name, data if isinstance(data, bytes) else data.encode(errors="backslashreplace"))
    except StorageError as error:
        raise BadRequest(str(error)) from error
