"""The options of a run, once: `python -m batch.reprocess` and `resight reprocess` share them.

The signature of `run_spec` is the list of them. A command that `takes_run_options` has them before its own,
and is called with the RunSpec they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from pydantic import ValidationError

from batch.scope import Scope
from batch.scope_options import parameters_of, said, scope_arguments, takes_options, takes_scope
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from batch.policy import Policy, Stop, read_policy
    from batch.snips.options import snip_options, snips_asked
    from batch.spec import PassSpec, RunSpec, new_run_id
    from serve.settings import Settings

Option = typer.Option
EVERYTHING = Scope()


@takes_scope()
def run_spec(
    model: Annotated[str, Option("--model", help="name, name@version or name:alias")] = "",
    scope: Scope = EVERYTHING,
    run_id: Annotated[str, Option("--run-id", help="default: made from the time")] = "",
    chunk: Annotated[
        int, Option("--chunk", help="images per call to a replica; 0 = by their size")
    ] = 0,
    actors: Annotated[int, Option("--actors", help="reading and decoding processes")] = 1,
    threads: Annotated[int, Option("--threads", help="per actor; 0 = cores + 1")] = 0,
    decode_on: Annotated[
        str | None,
        Option("--decode-on", help="custom resource of the nodes that read and decode; any node"),
    ] = None,
    commit_s: Annotated[
        float, Option("--commit-s", help="seconds between commits: the most a crash costs")
    ] = 5.0,
    megapixels: Annotated[
        int, Option("--megapixels", help="larger images fail as too_large")
    ] = 100,
    failed_frac: Annotated[
        float | None, Option("--stop-failed-frac", help="give up over it; default: the policy's")
    ] = None,
    failed_after: Annotated[
        int | None, Option("--stop-failed-after", help="but not before so many images")
    ] = None,
    stall_s: Annotated[
        float | None, Option("--stall-s", help="give up after so long without a result")
    ] = None,
    snips: Annotated[
        bool, Option("--snips/--no-snips", help="keep a crop of each detection as a JPEG")
    ] = False,
    snip_margin_frac: Annotated[
        float | None, Option("--snip-margin-frac", help="around its box; default: the policy's")
    ] = None,
    snip_quality: Annotated[
        int | None, Option("--snip-quality", help="of the JPEG; default: the policy's")
    ] = None,
    snip_min_score: Annotated[
        str | None,
        Option("--snip-min-score", help="from it on; off: from the model's thresholds on"),
    ] = None,
) -> RunSpec:
    """Raises BadRequest that names the options which do not go together."""
    limits = {"failed_frac": failed_frac, "failed_after": failed_after, "stall_s": stall_s}
    own = {name: value for name, value in limits.items() if value is not None}
    try:
        policy = {} if len(own) == len(limits) else _policy().stop
        return RunSpec(
            run_id=run_id or new_run_id(),
            model=model,
            scope=scope,
            chunk=chunk,
            actors=actors,
            threads=threads,
            decode_on=decode_on,
            commit_s=commit_s,
            megapixels=megapixels,
            stop=Stop.model_validate(dict(policy) | own),
            snips=snips_asked(snips, snip_margin_frac, snip_quality, snip_min_score, _policy),
        )
    except ValidationError as error:
        raise BadRequest(said(error)) from error


def require_model(spec: PassSpec) -> None:
    """Raises BadRequest. What is asked --if-needed has a model of its own."""
    if not spec.model:
        raise BadRequest("--model is needed: name, name@version or name:alias; see --help")


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command(spec, …)` for Typer: `spec` is made from the options of a run."""
    return takes_options(run_spec, parameters_of(run_spec).values(), "spec")(command)


def arguments(spec: RunSpec) -> list[str]:
    """Return the command line that means this spec."""
    stop = spec.stop
    fields = {
        "--model": spec.model,
        "--run-id": spec.run_id,
        "--chunk": spec.chunk,
        "--actors": spec.actors,
        "--threads": spec.threads,
        "--decode-on": spec.decode_on,
        "--commit-s": spec.commit_s,
        "--megapixels": spec.megapixels,
        "--stop-failed-frac": stop.failed_frac,
        "--stop-failed-after": stop.failed_after,
        "--stall-s": stop.stall_s,
    }
    given = (
        (name, str(value))
        for name, value in (fields | snip_options(spec.snips)).items()
        if value is not None
    )
    flags = ["--snips"] if spec.snips else []
    return [word for pair in given for word in pair] + flags + scope_arguments(spec.scope)


def _policy() -> Policy:
    """A file that RESIGHT_POLICY names must be there."""
    settings = Settings()
    return read_policy(settings.policy_path, required=bool(settings.policy))
