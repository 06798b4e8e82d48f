"""A sweep kept: a folder with tune.json (raw samples included) and index.html, which comes last.

with reserved(out) as folder, before anything is measured: write_report(tuned, …, folder) -> what to do about it
read_report(folder) -> Tuned
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

from pydantic import ValidationError

from model_store.errors import BadRequest, ResightError, StorageUnreachable
from model_store.storage import Folder, absolute, is_local
from model_store.store import ModelVersion
from serve.settings import Settings
from serve.tune import shrunk
from serve.tune.facts import Tuned
from serve.tune.page import page
from serve.tune.words import advice

FACTS = "tune.json"
RESERVED = ".measuring"


def default_out(settings: Settings, model: str, at: str) -> str:
    """HOME/tune/ssdlite-coco@1-20261122T073000Z."""
    stamp = at.replace("-", "").replace(":", "").replace("+0000", "Z")
    return str(settings.home_path / "tune" / f"{model}-{stamp}")


def require_empty(out: str) -> Folder:
    """Before any work is done for it. Raises BadRequest."""
    folder = Folder(absolute(out))
    if folder.names() or (folder.exists() and not folder.fs.isdir(folder.root)):
        raise BadRequest(f"{out} is not empty: name a new folder for the report")
    return folder


@contextlib.contextmanager
def reserved(out: str) -> Generator[Folder]:
    """The folder, nobody else's until the end; without a report it is then as it was.

    Raises BadRequest when something is there, StorageUnreachable and StorageUnsafe where it cannot be written.
    """
    folder = require_empty(out)
    known = folder.exists()
    try:
        folder.create(RESERVED, b"")
    except FileExistsError:
        raise BadRequest(f"{out} is another sweep's: name a new folder for the report") from None
    try:
        yield folder
    finally:
        with contextlib.suppress(
            Exception
        ):  # it takes nothing from a report, and says less than an error
            folder.remove(RESERVED)
        if is_local(folder.url) and not known:
            with contextlib.suppress(OSError):  # it holds a report
                Path(folder.root).rmdir()


def write_report(tuned: Tuned, version: ModelVersion, store: str, folder: Folder) -> Sequence[str]:
    """Raises StorageUnreachable."""
    name = shrunk.config_name(tuned)
    todo = what_to_do(tuned, version, store, folder.url)
    if name is not None:
        put(folder, name, shrunk.config_of(tuned, version))
    put(folder, FACTS, tuned.model_dump_json().encode())
    put(folder, "index.html", page(tuned, todo).encode("utf-8", "backslashreplace"))
    return todo


def what_to_do(tuned: Tuned, version: ModelVersion, store: str, out: str) -> list[str]:
    """A sentence and its commands each."""
    gained = shrunk.words(tuned, version, store, out)
    return [*advice(tuned, out), *([gained] if gained else [])]


def put(folder: Folder, name: str, data: bytes) -> None:
    """In one step. Raises StorageUnreachable."""
    try:
        folder.write(name, data)
    except ResightError:
        raise
    except Exception as error:
        raise StorageUnreachable(f"cannot write {folder.url}/{name}: {error}") from error


def read_report(out: str) -> Tuned:
    """Raises BadRequest for a folder that is no report."""
    try:
        return Tuned.model_validate_json(Folder(absolute(out)).read(FACTS))
    except FileNotFoundError:
        raise BadRequest(
            f"{out} has no {FACTS}: name the folder of a report of 'resight tune'"
        ) from None
    except ValidationError as error:
        raise BadRequest(
            f"{out}/{FACTS} is no report of this 'resight tune': {error.errors()[0]['msg']}"
        ) from error
