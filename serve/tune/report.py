"""A sweep kept: a folder with tune.json (raw samples included) and index.html, which comes last.

write_report(tuned, …) -> what to do about it, in words; read_report(folder) -> Tuned
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from model_store.errors import BadRequest
from model_store.storage import Folder, absolute
from model_store.store import ModelVersion
from serve.settings import Settings
from serve.tune import shrunk
from serve.tune.facts import Tuned
from serve.tune.page import page
from serve.tune.words import advice

FACTS = "tune.json"


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


def write_report(tuned: Tuned, version: ModelVersion, store: str, out: str) -> Sequence[str]:
    """Raises BadRequest when something is there, and StorageUnreachable."""
    folder = require_empty(out)
    todo = [*advice(tuned, folder.url)]
    name = shrunk.config_name(tuned)
    if name is not None:
        folder.write(name, shrunk.config_of(tuned, version))
        todo.append(shrunk.words(tuned, version, store, folder.url) or "")
    folder.write(FACTS, tuned.model_dump_json().encode())
    folder.write("index.html", page(tuned, todo).encode("utf-8", "backslashreplace"))
    return todo


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
