"""The options of a run, once: `python -m batch.reprocess` and `resight reprocess` share them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from batch.spec import RunSpec, Scope, new_run_id
from model_store.errors import BadRequest

ScopeName = Literal["all", "latest-per-camera", "camera", "status"]
StatusName = Literal["failed", "missing"]

Model = Annotated[str, typer.Option("--model", help="name, name@version or name:alias")]
ScopeKind = Annotated[ScopeName, typer.Option("--scope", help="which media")]
Camera = Annotated[str | None, typer.Option("--camera", help="with --scope camera: its id")]
Status = Annotated[
    StatusName | None,
    typer.Option("--status", help="with --scope status: retry failed, or missing only"),
]
RunId = Annotated[str, typer.Option("--run-id", help="default: made from the time")]
Chunk = Annotated[
    int, typer.Option("--chunk", help="images per call to a replica; 0 = by their size")
]
Actors = Annotated[int, typer.Option("--actors", help="reading and decoding processes")]
Threads = Annotated[int, typer.Option("--threads", help="per actor; 0 = cores + 1")]
CommitSeconds = Annotated[
    float, typer.Option("--commit-s", help="seconds between commits: the most a crash costs")
]
Megapixels = Annotated[int, typer.Option("--megapixels", help="larger images fail as too_large")]


def run_spec(
    model: str,
    scope: ScopeName,
    camera: str | None,
    status: StatusName | None,
    run_id: str,
    **pace: Any,
) -> RunSpec:
    """Raises BadRequest that names the options which do not go together."""
    try:
        wanted = Scope(kind=scope, camera=camera, status=status)
        return RunSpec(run_id=run_id or new_run_id(), model=model, scope=wanted, **pace)
    except ValidationError as error:
        raise BadRequest(
            "; ".join(_words(item["loc"], item["msg"]) for item in error.errors())
        ) from error


def _words(place: tuple[int | str, ...], message: str) -> str:
    option = "".join(f"--{part}: ".replace("_", "-") for part in place)
    return option + message.removeprefix("Value error, ")


def arguments(spec: RunSpec) -> list[str]:
    """The command line that means this spec."""
    scope = spec.scope
    return [
        *("--model", spec.model, "--scope", scope.kind, "--run-id", spec.run_id),
        *(("--camera", scope.camera) if scope.camera is not None else ()),
        *(("--status", scope.status) if scope.status else ()),
        *("--chunk", str(spec.chunk), "--actors", str(spec.actors)),
        *("--threads", str(spec.threads), "--commit-s", str(spec.commit_s)),
        *("--megapixels", str(spec.megapixels)),
    ]
