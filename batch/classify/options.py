"""The options of a classify run, once: `python -m batch.classify` and `resight classify` share them.

Those of every run, from `batch/options.py`, and its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from archive.defaults import PRODUCTION
from batch.options import arguments, run_spec, said, takes_options
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    import pydantic

    from batch.classify.spec import ClassifySpec
    from batch.scope_options import parameters_of
    from batch.spec import PassSpec, RunSpec

Option = typer.Option
_OF_DETECTION = ("chunk", "snips", "snip_margin_frac", "snip_quality", "snip_min_score")
"""Options that only runs that detect have."""


def own_options(
    labels: Annotated[
        str | None, Option("--labels", help="only detections that the detector calls so: animal,…")
    ] = None,
    least_score: Annotated[
        float, Option("--least-score", help="only detections from this score on")
    ] = 0.0,
    min_side_px: Annotated[
        float, Option("--min-side-px", help="only boxes whose shorter side is as long")
    ] = 0.0,
    margin_frac: Annotated[
        float, Option("--margin-frac", help="around each box, of its longer side; 0 to 2")
    ] = 0.0,
    view: Annotated[str, Option("--view", help="whose detections")] = PRODUCTION,
) -> dict[str, Any]:
    """Their values as fields of ClassifySpec."""
    named = tuple(word.strip() for word in (labels or "").split(",") if word.strip())
    if labels is not None and not named:
        raise BadRequest("--labels: name one at least, such as --labels animal,bird")
    return {
        "labels": tuple(dict.fromkeys(named)),
        "least_score": least_score,
        "min_side_px": min_side_px,
        "margin_frac": margin_frac,
        "view": view,
    }


def classify_spec(**values: Any) -> ClassifySpec:
    """Raises BadRequest that names the options which do not go together."""
    own = {name: values.pop(name) for name in parameters_of(own_options) if name in values}
    shared = run_spec(**values)
    fields = {name: getattr(shared, name) for name in PassSpec.model_fields}
    try:
        return ClassifySpec.model_validate(fields | own_options(**own))
    except pydantic.ValidationError as error:
        raise BadRequest(said(error)) from error


def takes_classify_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command(spec, …)` for Typer: `spec` is made from the options of a classify run."""
    shared = parameters_of(run_spec)
    for name in _OF_DETECTION:
        del shared[name]
    options = [*shared.values(), *parameters_of(own_options).values()]
    return takes_options(classify_spec, options, "spec")(command)


def classify_arguments(spec: ClassifySpec) -> list[str]:
    """The command line that means this spec."""
    fields = {name: getattr(spec, name) for name in PassSpec.model_fields}
    words = arguments(RunSpec.model_validate(fields))
    at = words.index("--chunk")
    del words[at : at + 2]
    own = {
        "--labels": ",".join(spec.labels) or None,
        "--least-score": spec.least_score,
        "--min-side-px": spec.min_side_px,
        "--margin-frac": spec.margin_frac,
        "--view": spec.view,
    }
    given = [(name, str(value)) for name, value in own.items() if value is not None]
    return words + [word for pair in given for word in pair]
