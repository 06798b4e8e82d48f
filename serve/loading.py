"""A version from the store to a model that is ready to serve: verified, probed, warm, batches as they pay here."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from model_store.deployment import read_deployment
from model_store.errors import ResightError
from model_store.loaded import Loaded, load_model, with_measured_batch
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout.prove import warm_up

log = structlog.get_logger("resight.serve")


class Loader:
    """Remembers which batch pays for which weights: the same are not measured again."""

    def __init__(self, store: ModelStore, threads: int) -> None:
        self._store, self._threads = store, threads
        self._paying_batch: dict[tuple[object, ...], int] = {}

    def load(self, version: VersionId, digest: str = "") -> Loaded:
        """From files of this digest, if one is given. Raises ModelError."""
        started = time.perf_counter()
        model = self.tuned(self._sized(load_model(self._store, version, self._threads, digest)))
        log.info(
            "model_loaded",
            version=str(version),
            device=model.session.device,
            batch=model.batch.max,
            s=round(time.perf_counter() - started, 3),
        )
        return model

    def tuned(self, model: Loaded) -> Loaded:
        """With the batch of deployment.json, or the measured one where it has none; a damaged file changes
        nothing.
        """
        try:
            batch = read_deployment(self._store, model.info.id).batch
        except ResightError as error:
            log.warning("deployment_ignored", version=str(model.info.id), error=str(error))
            return model
        if batch is None:
            most = self._paying_batch[_measured(model)]
            batch = model.config.batch.model_copy(update={"max": most})
        return replace(model, batch=batch)

    def _sized(self, model: Loaded) -> Loaded:
        """Warm, with the batch that pays here."""
        same = _measured(model)
        most = self._paying_batch.get(same)
        if most is None:
            model = with_measured_batch(model)
            self._paying_batch[same] = model.batch.max
            return model
        batch = model.config.batch.model_copy(update={"max": most})
        model = replace(model, batch=batch)
        warm_up(model)
        return model


def _measured(model: Loaded) -> tuple[object, ...]:
    """What the batch that pays depends on, on one machine."""
    config = model.config
    return model.info.weights_sha256, config.preprocess.input_px, config.batch.max
