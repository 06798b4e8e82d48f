"""The options of a run, once: `python -m batch.reprocess` and `resight reprocess` share them.

The signature of `run_spec` is the list of them. A command that `takes_run_options` has them before its own,
and is called with the RunSpec they mean.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from batch.scope_kind import ScopeKind
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    import pydantic

    from batch.id_list import name_ids
    from batch.policy import Policy, Stop, read_policy
    from batch.scope import Scope
    from batch.snips.options import snip_options, snips_asked
    from batch.spec import PassSpec, RunSpec, new_run_id
    from serve.settings import Settings

Option = typer.Option
_WORDS = {"start": "from", "end": "until", "kind": "scope", "failed_frac": "stop-failed-frac"}
_WORDS |= {"failed_after": "stop-failed-after"}


def run_spec(
    model: Annotated[str, Option("--model", help="name, name@version or name:alias")] = "",
    scope: Annotated[ScopeKind, Option("--scope", help="which media")] = "all",
    camera: Annotated[str | None, Option("--camera", help="scope camera: its id")] = None,
    start: Annotated[
        str | None, Option("--from", help="scope time: from then on, by the camera's clock")
    ] = None,
    end: Annotated[str | None, Option("--until", help="scope time: before then")] = None,
    path: Annotated[
        str | None, Option("--path", help="scope path: a glob such as 'north/2026-05/*'")
    ] = None,
    label: Annotated[
        str | None, Option("--label", help="scope label: shown in the published view")
    ] = None,
    min_score: Annotated[
        float | None, Option("--min-score", help="scope label: at least this score")
    ] = None,
    max_score: Annotated[float | None, Option("--max-score", help="scope label: below it")] = None,
    status: Annotated[
        Literal["failed", "missing"] | None,
        Option("--status", help="scope status: retry failed, or missing only"),
    ] = None,
    ids: Annotated[
        str | None, Option("--ids", help="scope ids: a file with a media_sha256 a line")
    ] = None,
    sample: Annotated[
        int | None, Option("--sample", help="only so many, by camera and by day and night")
    ] = None,
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
        wanted = Scope(
            kind=scope,
            camera=camera,
            start=_moment("--from", start),
            end=_moment("--until", end),
            path=path,
            label=label,
            min_score=min_score,
            max_score=max_score,
            status=status,
            ids=_named(ids) if ids else None,
            sample=sample,
        )
        policy = {} if len(own) == len(limits) else _policy().stop
        return RunSpec(
            run_id=run_id or new_run_id(),
            model=model,
            scope=wanted,
            chunk=chunk,
            actors=actors,
            threads=threads,
            decode_on=decode_on,
            commit_s=commit_s,
            megapixels=megapixels,
            stop=Stop.model_validate(dict(policy) | own),
            snips=snips_asked(snips, snip_margin_frac, snip_quality, snip_min_score, _policy),
        )
    except pydantic.ValidationError as error:
        raise BadRequest(said(error)) from error


def require_model(spec: PassSpec) -> None:
    """Raises BadRequest. What is asked --if-needed has a model of its own."""
    if not spec.model:
        raise BadRequest("--model is needed: name, name@version or name:alias; see --help")


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command(spec, …)` for Typer: `spec` is made from the options of a run."""
    shared = inspect.signature(run_spec, eval_str=True).parameters
    return takes_options(run_spec, list(shared.values()))(command)


def takes_options(
    make: Callable[..., PassSpec], shared: Sequence[inspect.Parameter]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that has the options `shared` before its own, and is called with what `make` makes of them."""

    def taking(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def called(**values: Any) -> None:
            command(make(**{one.name: values.pop(one.name) for one in shared}), **values)

        parameters = [*shared, *own]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return taking


def arguments(spec: RunSpec) -> list[str]:
    """The command line that means this spec."""
    scope, stop = spec.scope, spec.stop
    fields = {
        "--model": spec.model,
        "--scope": scope.kind,
        "--camera": scope.camera,
        "--from": scope.start and scope.start.isoformat(),
        "--until": scope.end and scope.end.isoformat(),
        "--path": scope.path,
        "--label": scope.label,
        "--min-score": scope.min_score,
        "--max-score": scope.max_score,
        "--status": scope.status,
        "--ids": scope.ids,
        "--sample": scope.sample,
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
    return [word for pair in given for word in pair] + flags


def _policy() -> Policy:
    """A file that RESIGHT_POLICY names must be there."""
    settings = Settings()
    return read_policy(settings.policy_path, required=bool(settings.policy))


def _moment(option: str, text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text is not None else None
    except ValueError as error:
        raise BadRequest(
            f"{option}: '{text}' is no time; write 2026-05-14 or 2026-05-14T07:30"
        ) from error


def _named(ids: str) -> str:
    """A list that is kept already, by its name, or that of a file."""
    return ids if re.fullmatch(r"[0-9a-f]{64}", ids) else name_ids(Path(ids))


def said(error: pydantic.ValidationError) -> str:
    """What is wrong, by the names of the options."""
    return "; ".join(_said(item["loc"], item["msg"]) for item in error.errors())


def _said(place: tuple[int | str, ...], message: str) -> str:
    option = "".join(f"--{_WORDS.get(str(part), part)}: ".replace("_", "-") for part in place[-1:])
    return option + message.removeprefix("Value error, ")
