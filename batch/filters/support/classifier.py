"""Resolve the classifier that a filter names, and the names of its classes, before a run starts.

name@version, a key or its first digits, or nothing --classifier_of--> Classified --> names and lineages of its classes
"""

from __future__ import annotations

from archive.annotations.classes import Classified, classifiers, only_classifier, read_classes
from archive.delta.tables import Tables
from batch.filters.contract import ClassFilterConfig, Filter, FilterConfig
from model_store.errors import BadRequest

FEWEST_DIGITS = 4


def classifier_of(tables: Tables, inference_key: str, name: str) -> Classified:
    """Return the classifier with this name among those that have classified detections of this inference key.

    Raises BadRequest that lists them if the name does not match exactly one.
    """
    available = classifiers(tables, inference_key)
    wanted = name or only_classifier(tables, inference_key)
    matches = [c for c in available if wanted == f"{c.model_name}@{c.model_version}"]
    if not matches and len(wanted) >= FEWEST_DIGITS:
        matches = [c for c in available if c.classifier_key.startswith(wanted)]
    if len(matches) != 1:
        listed = "; ".join(map(str, available)) or "none: resight classify --model NAME"
        raise BadRequest(f"'{name}' matches {len(matches)} classifiers of these detections; available: {listed}")
    return matches[0]


def with_classifier(
    tables: Tables, inference_key: str, filter_: Filter, config: ClassFilterConfig
) -> ClassFilterConfig:
    """Return the config with the complete classifier key, if it needs one.

    Raises BadRequest if it does not fit the classes, or needs a classifier and none is available.
    """
    if config.needs is None or (
        config.needs == "lineages" and not config.classifier and not classifiers(tables, inference_key)
    ):
        return config
    classified = classifier_of(tables, inference_key, config.classifier)
    if filter_.require is not None:
        filter_.require(config, *read_classes(tables.url, classified.labels_digest))
    return config.model_copy(update={"classifier": classified.classifier_key})


def classes_of(tables: Tables, inference_key: str, config: FilterConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names and lineages of the classes for a filter with this config; empty if it needs none.

    Raises BadRequest if its classifier has classified nothing, StorageUnreachable.
    """
    if not isinstance(config, ClassFilterConfig) or not (config.needs and config.classifier):
        return (), ()
    classified = classifier_of(tables, inference_key, config.classifier)
    return read_classes(tables.url, classified.labels_digest)
