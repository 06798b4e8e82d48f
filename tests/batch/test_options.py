"""Options to a spec, and back to the command line that means it."""

from __future__ import annotations

import inspect
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer

import batch.reprocess
import cli.filters
import cli.reprocess
from batch.filters.scope import FilterScope
from batch.id_list import keep_ids
from batch.options import arguments, require_model, run_spec, takes_run_options
from batch.policy import Stop
from batch.scope import Scope
from batch.spec import RunSpec
from model_store.errors import BadRequest

NOON, LATER = datetime(2026, 5, 14, 12), datetime(2026, 5, 15)


def spec_of(command_line: list[str]) -> RunSpec:
    """What a command with the options of a run is called with."""
    seen: list[RunSpec] = []

    @takes_run_options
    def command(spec: RunSpec) -> None:
        seen.append(spec)

    app = typer.Typer()
    app.command()(command)
    assert typer.main.get_command(app).main(command_line, standalone_mode=False) is None
    return seen[0]


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(run_id="r", model="m"),
        RunSpec(run_id="r-1", model="deer@3", scope=Scope(latest_per_camera=True, sample=2)),
        RunSpec(run_id="r", model="m:canary", scope=Scope(camera=("deer north",))),
        RunSpec(run_id="r", model="m", scope=Scope(camera=("--model",))),
        RunSpec(run_id="r", model="m", scope=Scope(camera=("a", "b, c"), until=LATER, min_score=0)),
        RunSpec(run_id="r", model="m", scope=Scope(since=NOON, sample=9)),
        RunSpec(run_id="r", model="m", scope=Scope(since=NOON, until=LATER)),
        RunSpec(run_id="r", model="m", scope=Scope(path="a b/*")),
        RunSpec(run_id="r", model="m", scope=Scope(label="cat", max_score=0.5)),
        RunSpec(run_id="r", model="m", scope=Scope(min_score=0.25)),
        RunSpec(run_id="r", model="m", scope=Scope(ids="a" * 64)),
        RunSpec(run_id="r", model="m", stop=Stop(failed_frac=0.1, failed_after=7, stall_s=8.5)),
        RunSpec(run_id="r", model="m", scope=Scope(status="failed")),
        RunSpec(run_id="r", model="m", scope=Scope(status="missing")),
        RunSpec(run_id="r", model="m", chunk=7, actors=3, threads=5, commit_s=0.25, megapixels=12),
        RunSpec(run_id="r", model="m", decode_on="field-node"),
    ],
)
def test_the_arguments_of_a_spec_are_parsed_into_the_same_spec(spec: RunSpec) -> None:
    assert spec_of(arguments(spec)) == spec


def test_every_field_of_a_spec_is_an_option_of_both_commands() -> None:
    fields = {*RunSpec.model_fields, *Scope.model_fields, *Stop.model_fields} - {"scope", "stop"}
    for command in (batch.reprocess.main, cli.reprocess.reprocess):
        assert fields <= set(inspect.signature(command).parameters), command
    for command in (cli.filters.run, cli.filters.rerun):
        assert set(FilterScope.model_fields) <= set(inspect.signature(command).parameters)
    assert "status" not in FilterScope.model_fields


def test_defaults_of_the_options_are_those_of_the_spec() -> None:
    asked = run_spec(model="m", run_id="r")
    assert asked == RunSpec(run_id="r", model="m")


def test_limits_that_are_not_given_are_those_of_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[stop]\nfailed_frac = 0.25\nstall_s = 60\n")
    monkeypatch.setenv("RESIGHT_POLICY", str(policy))
    assert run_spec(model="m").stop == Stop(failed_frac=0.25, stall_s=60)
    assert run_spec(model="m", stall_s=5).stop == Stop(failed_frac=0.25, stall_s=5)


def test_a_model_is_needed() -> None:
    require_model(run_spec(model="m"))
    with pytest.raises(BadRequest, match="--model is needed: name, name@version or name:alias"):
        require_model(run_spec())


def test_a_list_of_images_is_kept_with_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_TABLES", str(tmp_path / "tables"))
    listed = tmp_path / "few.csv"
    listed.write_text("media_sha256\n" + "b" * 64 + "\n" + "a" * 64 + "\n")
    spec = spec_of(["--model", "m", "--ids", str(listed)])
    assert spec.scope.ids is not None
    kept = tmp_path / "tables" / "scopes" / f"{spec.scope.ids}.txt"
    assert not kept.exists(), "who only plans writes nothing"
    keep_ids(str(tmp_path / "tables"), spec.scope.ids)
    assert kept.read_text().split() == ["a" * 64, "b" * 64]
    assert spec_of(arguments(spec)) == spec


def test_a_run_without_an_id_gets_a_new_one() -> None:
    one, two = (spec_of(["--model", "m"]) for _ in range(2))
    assert one.run_id != two.run_id


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"since": "noon"}, "--since: invalid time 'noon': use 2026-05-01 or 2026-05-01T12:00"),
        ({"camera": ["a", ""]}, "--camera: String should have at least 1 character"),
        ({"min_score": 2.0}, "--min-score: Input should be less than or equal to 1"),
        ({"failed_frac": 2.0}, "--stop-failed-frac: Input should be less than or equal to 1"),
        ({"chunk": -1}, "--chunk: Input should be greater than or equal to 0"),
        ({"commit_s": -1.0}, "--commit-s: Input should be greater than 0"),
        (
            {"chunk": -1, "actors": 0},
            "--actors: Input should be greater than or equal to 1; "
            "--chunk: Input should be greater than or equal to 0",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run_spec(**{"model": "m"} | options)
    assert str(caught.value).startswith(words)
