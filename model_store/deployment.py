"""How a model is run, apart from what it is: mutable, and never part of the inference key.

<models>/<name>/deployment.json: {"*": {"batch": {"max": 4, "wait_ms": 2}}, "3": {"batch": {"max": 16}}}

"*" is for every version, a version's own entry wins. Replicas read it again at each look at the store.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import ValidationError

from model_store.config import Batch, Frozen
from model_store.errors import ModelRefused
from model_store.names import VersionId
from model_store.store import ModelStore

DEPLOYMENT = "deployment.json"
EVERY = "*"


class Deployment(Frozen):
    """`batch` replaces that of config.json and what was measured at load."""

    batch: Batch | None = None


def read_deployment(store: ModelStore, version: VersionId) -> Deployment:
    """Empty where nothing is written. Raises ModelRefused that names file and field."""
    where = f"{store.url}/{version.name}/{DEPLOYMENT}"
    try:
        found: Any = json.loads(store.folder.read(f"{version.name}/{DEPLOYMENT}"))
    except FileNotFoundError:
        return Deployment()
    except ValueError as error:
        raise ModelRefused(f"{where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelRefused(f'{where} must map "{EVERY}" or versions to settings')
    entries = cast(dict[str, Any], found)
    own = entries.get(version.version, entries.get(EVERY, {}))
    try:
        return Deployment.model_validate(own)
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"])
        raise ModelRefused(f"{where}: {field}: {wrong['msg']}") from error
