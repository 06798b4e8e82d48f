"""A version from the store to a detector that is ready to serve: verified, probed, warm, batches as they pay here."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from model_store.deployment import read_deployment
from model_store.detector import LoadedDetector, load_detector, with_measured_batch
from model_store.errors import ResightError
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout.prove import warm_up

log = structlog.get_logger("resight.serve")


class Loader:
    """Remembers which batch pays for which weights: the same are not measured again."""

    def __init__(self, store: ModelStore, threads: int) -> None:
        self._store, self._threads = store, threads
        self._paying_batch: dict[tuple[object, ...], int] = {}

    def load(self, version: VersionId) -> LoadedDetector:
        """Raises ModelError."""
        started = time.perf_counter()
        detector = self.tuned(self._sized(load_detector(self._store, version, self._threads)))
        log.info(
            "model_loaded",
            version=str(version),
            device=detector.session.device,
            batch=detector.batch.max,
            s=round(time.perf_counter() - started, 3),
        )
        return detector

    def tuned(self, detector: LoadedDetector) -> LoadedDetector:
        """With the batch of deployment.json, or the measured one where it has none; a damaged file changes
        nothing.
        """
        try:
            batch = read_deployment(self._store, detector.info.id).batch
        except ResightError as error:
            log.warning("deployment_ignored", version=str(detector.info.id), error=str(error))
            return detector
        if batch is None:
            most = self._paying_batch[_measured(detector)]
            batch = detector.config.batch.model_copy(update={"max": most})
        return replace(detector, batch=batch)

    def _sized(self, detector: LoadedDetector) -> LoadedDetector:
        """Warm, with the batch that pays here."""
        same = _measured(detector)
        most = self._paying_batch.get(same)
        if most is None:
            detector = with_measured_batch(detector)
            self._paying_batch[same] = detector.batch.max
            return detector
        batch = detector.config.batch.model_copy(update={"max": most})
        detector = replace(detector, batch=batch)
        warm_up(detector)
        return detector


def _measured(detector: LoadedDetector) -> tuple[object, ...]:
    """What the batch that pays depends on, on one machine."""
    config = detector.config
    return detector.info.weights_sha256, config.preprocess.input_px, config.batch.max
