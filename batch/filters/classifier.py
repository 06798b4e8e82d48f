"""Which classifier a filter means, and the names of its classes: settled before a run starts.

name@version, a key or its first digits, or nothing --classifier_of--> Classified --> names and lineages of its classes
"""

from __future__ import annotations

from archive.classes import Classified, classifiers, only_classifier, read_classes
from archive.tables import Tables
from batch.filters.contract import ClassFilterConfig, Filter, FilterConfig
from model_store.errors import BadRequest

FEWEST_DIGITS = 4


def classifier_of(tables: Tables, inference_key: str, name: str) -> Classified:
    """The one that has classified detections of this inference key. Raises BadRequest that lists them."""
    found = classifiers(tables, inference_key)
    wanted = name or only_classifier(tables, inference_key)
    meant = [one for one in found if wanted == f"{one.model_name}@{one.model_version}"]
    if not meant and len(wanted) >= FEWEST_DIGITS:
        meant = [one for one in found if one.classifier_key.startswith(wanted)]
    if len(meant) != 1:
        there = "; ".join(map(str, found)) or "none: resight classify --model NAME"
        raise BadRequest(
            f"'{name}' means {len(meant)} classifiers of these detections; there is: {there}"
        )
    return meant[0]


def with_classifier(
    tables: Tables, inference_key: str, one: Filter, config: ClassFilterConfig
) -> ClassFilterConfig:
    """Return the config with the whole classifier key, where it needs one.

    Raises BadRequest where it does not go with the classes, or needs a classifier and there is none.
    """
    if config.needs is None or (
        config.needs == "lineages"
        and not config.classifier
        and not classifiers(tables, inference_key)
    ):
        return config
    classified = classifier_of(tables, inference_key, config.classifier)
    if one.require is not None:
        one.require(config, *read_classes(tables.url, classified.labels_digest))
    return config.model_copy(update={"classifier": classified.classifier_key})


def classes_of(
    tables: Tables, inference_key: str, config: FilterConfig
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and lineages of the classes that a filter with this config is given; none if it needs none.

    Raises BadRequest if its classifier has classified nothing, StorageUnreachable.
    """
    if not isinstance(config, ClassFilterConfig) or not (config.needs and config.classifier):
        return (), ()
    classified = classifier_of(tables, inference_key, config.classifier)
    return read_classes(tables.url, classified.labels_digest)
