"""Pipelines of the model store: each detector alone, and each detector with each classifier of its pool.

A slug names exact versions, as results in Antenna belong to them:
blobs-1-5e884898, or with a classifier blobs-1-5e884898--colours-1-8d969eef
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from model_store.config import EXTERNAL
from model_store.errors import ModelError, ModelNotFound
from model_store.names import MAX_QUOTED, VersionId, parse_ref
from model_store.store import ModelInfo, ModelStore, ModelVersion
from serve.inference.engine import Engine
from serve.rollout.state import read_state

JOINT = "--"
KEY = r"[a-z0-9_]+(?:-[a-z0-9_]+)*-[0-9a-f]{8}"
SLUG = re.compile(rf"{KEY}(?:{JOINT}{KEY})?")
KEEP_S = 2.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A detector, and the classifier of its boxes if any."""

    detector: ModelVersion
    classifier: ModelVersion | None = None

    @property
    def models(self) -> tuple[ModelVersion, ...]:
        return (self.detector, self.classifier) if self.classifier else (self.detector,)

    @property
    def slug(self) -> str:
        return JOINT.join(key_of(model.info) for model in self.models)

    def described(self) -> dict[str, Any]:
        """Return the pipeline for Antenna, which also looks pipelines up by name: names are as unique as slugs."""
        names = " + ".join(str(model.id) for model in self.models)
        return {
            "name": " + ".join(reference(model.info)["name"] for model in self.models),
            "slug": self.slug,
            "version": 1,
            "description": f"Resight: {names}",
            "algorithms": [algorithm(model) for model in self.models],
            "stages": [],
        }


class Pipelines:
    """The pipelines of an engine's store. Use it on one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading: asyncio.Task[list[Pipeline]] | None = None
        self._read_at_s = 0.0
        self._by_slug: dict[str, Pipeline] = {}

    async def served(self) -> list[Pipeline]:
        """Return the pipelines of the serving versions, read once in KEEP_S. Raises StorageUnreachable, Overloaded."""
        engine, now_s = self._engine, time.monotonic()
        if self._reading is None or (self._reading.done() and now_s - self._read_at_s >= KEEP_S):
            pool_of = engine.placement.pool_of
            reading = engine.lookups.run(served_pipelines, engine.store, pool_of)
            self._reading, self._read_at_s = asyncio.create_task(reading), now_s
        return await asyncio.shield(self._reading)

    async def find(self, slug: str) -> Pipeline:
        """Return a pipeline of any versions, which never change. Raises as `find_pipeline`, and Overloaded."""
        if slug not in self._by_slug:
            if not SLUG.fullmatch(slug):  # before the whole store is read
                raise _not_found(slug)
            engine = self._engine
            self._by_slug[slug] = await engine.lookups.run(find_pipeline, engine.store, slug)
        return self._by_slug[slug]


def key_of(info: ModelInfo) -> str:
    """Return the key of a version: its name and version as a slug without `--`, and the start of its inference key."""
    return f"{_words(str(info.id))}-{info.inference_key[:8]}"


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def reference(info: ModelInfo) -> dict[str, str]:
    return {"name": f"{info.id} ({info.inference_key[:8]})", "key": key_of(info)}


def algorithm(model: ModelVersion) -> dict[str, Any]:
    """Return a model for Antenna. A detector has a category map too: its label is an intermediate classification."""
    info, labels = model.info, list(model.info.labels)
    return {
        **reference(info),
        "task_type": "detection" if is_detector(model) else "classification",
        "version": 1,
        "version_name": info.version,
        "description": f"weights {info.weights_sha256}, inference key {info.inference_key}",
        "category_map": {"data": [{"label": label, "index": i} for i, label in enumerate(labels)], "labels": labels},
    }


def is_detector(model: ModelVersion) -> bool:
    return model.config.kind == "detector"


def served_pipelines(store: ModelStore, pool_of: Callable[[str], str]) -> list[Pipeline]:
    """Return the pipelines of the versions that answer for the bare names of models. Raises StorageUnreachable."""
    served = list(_described(store, store.names()))
    pipelines = list[Pipeline]()
    for detector in filter(is_detector, served):
        pool = pool_of(detector.id.name)
        others = [m for m in served if m.config.kind == "classifier" and pool_of(m.id.name) == pool]
        pipelines += [Pipeline(detector), *(Pipeline(detector, model) for model in others)]
    return pipelines


def find_pipeline(store: ModelStore, slug: str) -> Pipeline:
    """Return the pipeline of a slug, of any versions in the store. Raises ModelNotFound, StorageUnreachable."""
    keys = slug.split(JOINT)
    names = [name for name in store.names() if any(key.startswith(_words(name)) for key in keys)]
    every = (str(version) for name in names for version in store.versions(name))
    by_key = {key_of(model.info): model for model in _described(store, every)}
    found = [by_key[key] for key in keys if key in by_key]
    if [model.config.kind for model in found] == ["detector", "classifier"][: len(keys)]:
        return Pipeline(*found)
    raise _not_found(slug)


def _not_found(slug: str) -> ModelNotFound:
    return ModelNotFound(f"unknown pipeline '{slug[:MAX_QUOTED]}': GET /antenna/info lists them")


def _described(store: ModelStore, refs: Iterable[str]) -> Iterator[ModelVersion]:
    for ref in refs:
        try:
            wanted = parse_ref(ref)
            state = read_state(store, wanted.name).aliases.get(wanted.alias or "")
            model = store.describe(VersionId(wanted.name, state.active) if state else store.resolve(wanted))
        except ModelError:
            continue  # without an alias, or damaged: it answers no request either
        if model.config.runtime.kind != EXTERNAL:  # imported results answer none
            yield model
