"""Options to a spec, and back to the command line that means it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import typer

import batch.reprocess
import cli.reprocess
from batch.options import arguments, run_spec
from batch.spec import RunSpec, Scope
from model_store.errors import BadRequest


def parsed(command_line: list[str]) -> dict[str, Any]:
    """The values that `python -m batch.reprocess` is called with."""
    app = typer.Typer()
    app.command()(batch.reprocess.main)
    command = typer.main.get_command(app)
    return dict(command.make_context("reprocess", command_line).params)


def spec_of(command_line: list[str]) -> RunSpec:
    values = parsed(command_line)
    values.pop("dry_run")
    return run_spec(**values)


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(run_id="r", model="m"),
        RunSpec(run_id="r-1", model="deer@3", scope=Scope(kind="latest-per-camera")),
        RunSpec(run_id="r", model="m:canary", scope=Scope(kind="camera", camera="deer north")),
        RunSpec(run_id="r", model="m", scope=Scope(kind="camera", camera="--model")),
        RunSpec(run_id="r", model="m", scope=Scope(kind="camera", camera="")),
        RunSpec(run_id="r", model="m", scope=Scope(kind="status", status="failed")),
        RunSpec(run_id="r", model="m", scope=Scope(kind="status", status="missing")),
        RunSpec(run_id="r", model="m", chunk=7, actors=3, threads=5, commit_s=0.25, megapixels=12),
    ],
)
def test_the_arguments_of_a_spec_are_parsed_into_the_same_spec(spec: RunSpec) -> None:
    assert spec_of(arguments(spec)) == spec


def test_every_field_of_a_spec_is_an_option_of_both_commands() -> None:
    fields = set(RunSpec.model_fields) | set(Scope.model_fields) - {"kind"}
    for command in (batch.reprocess.main, cli.reprocess.reprocess):
        assert fields <= set(inspect.signature(command).parameters), command


def test_defaults_of_the_commands_are_those_of_the_spec() -> None:
    for command in (batch.reprocess.main, cli.reprocess.reprocess):
        parameters = inspect.signature(command).parameters
        for name in ("chunk", "actors", "threads", "commit_s", "megapixels"):
            assert parameters[name].default == RunSpec.model_fields[name].default, name


def test_a_run_without_an_id_gets_a_new_one() -> None:
    one, two = (spec_of(["--model", "m"]) for _ in range(2))
    assert one.run_id != two.run_id


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scope": "camera"}, "scope 'camera' and --camera VALUE go together, and only they do"),
        ({"camera": "north"}, "scope 'camera' and --camera VALUE go together, and only they do"),
        ({"chunk": -1}, "--chunk: Input should be greater than or equal to 0"),
        ({"commit_s": -1.0}, "--commit-s: Input should be greater than 0"),
        (
            {"chunk": -1, "actors": 0},
            "--chunk: Input should be greater than or equal to 0; "
            "--actors: Input should be greater than or equal to 1",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    asked = {"model": "m", "scope": "all", "camera": None, "status": None, "run_id": ""} | options
    with pytest.raises(BadRequest) as caught:
        run_spec(**asked)
    assert str(caught.value) == words
