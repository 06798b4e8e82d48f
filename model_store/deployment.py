"""How a model is run, apart from what it is: mutable, and never part of the inference key.

<models>/<name>/deployment.json: {"*": {"pool": "gpu", "batch": {"max": 4, "wait_ms": 2}}, "3": {"batch": {"max": 16}}}

"*" is for every version, a version's own entry wins; the pool is one for all of them. Replicas read it again
at each look at the store.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import Field, ValidationError

from model_store.config import Batch, Frozen
from model_store.errors import ModelRefused
from model_store.names import NAME, VersionId
from model_store.store import ModelStore

DEPLOYMENT = "deployment.json"
EVERY = "*"
DEFAULT_POOL = "default"


class Deployment(Frozen):
    """`batch` replaces that of config.json and what was measured at load; `pool` names the replicas that
    answer for the model (`pools` in serve/app.yaml).
    """

    batch: Batch | None = None
    pool: str | None = Field(default=None, pattern=f"^{NAME.pattern}$")


def read_deployment(store: ModelStore, version: VersionId) -> Deployment:
    """Empty where nothing is written. Raises ModelRefused that names file and field."""
    where, entries = _entries(store, version.name)
    own = version.version if version.version in entries else EVERY
    found = _checked(where, entries.get(own, {}))
    if found.pool and own != EVERY:
        raise ModelRefused(f'{where}: {own}.pool: all versions share a pool: write it under "*"')
    return found


def read_pool(store: ModelStore, name: str) -> str:
    """The pool that all versions of a model live in. Raises ModelRefused that names file and field."""
    where, entries = _entries(store, name)
    return _checked(where, entries.get(EVERY, {})).pool or DEFAULT_POOL


def _entries(store: ModelStore, name: str) -> tuple[str, dict[str, Any]]:
    """Where the file is, and what it says."""
    where = f"{store.url}/{name}/{DEPLOYMENT}"
    try:
        found: Any = json.loads(store.folder.read(f"{name}/{DEPLOYMENT}"))
    except FileNotFoundError:
        return where, {}
    except ValueError as error:
        raise ModelRefused(f"{where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelRefused(f'{where} must map "{EVERY}" or versions to settings')
    return where, cast(dict[str, Any], found)


def _checked(where: str, entry: object) -> Deployment:
    try:
        return Deployment.model_validate(entry)
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"])
        raise ModelRefused(f"{where}: {field}: {wrong['msg']}") from error
