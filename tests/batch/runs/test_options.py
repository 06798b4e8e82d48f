"""Test options to a spec, and back to the command line that results in it."""

from __future__ import annotations

import functools
import inspect
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import batch.classify.__main__
import batch.reprocess
import cli.filters
import cli.reprocess
from batch.jobs.cluster_jobs import runs_of
from batch.planning.id_list import keep_ids
from batch.runs.options import arguments, make_spec, require_model, scope_arguments, takes_spec
from batch.runs.scope import FilterScope, Scope
from batch.runs.spec import ClassifySpec, PassSpec, RunSpec
from batch.schedule.policy import Snips, Stop
from model_store.errors import BadRequest


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the policy file."""
    file = tmp_path / "policy.toml"
    file.touch()
    monkeypatch.setenv("RESIGHT_POLICY", str(file))
    return file


NOON, LATER = datetime(2026, 5, 14, 12), datetime(2026, 5, 15)


run_spec = functools.partial(make_spec, RunSpec)


def spec_of(command_line: list[str], kind: type[Any] = RunSpec, job: bool = False) -> Any:
    """Return the spec that a command with the options of a run is called with."""
    seen: list[Any] = []

    @takes_spec(kind, job)
    def command(spec: Any) -> None:
        seen.append(spec)

    app = typer.Typer()
    app.command()(command)
    assert typer.main.get_command(app).main(command_line, standalone_mode=False) is None
    return seen[0]


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(run_id="r-1", model="deer@3", scope=Scope(latest_per_camera=True, sample=2)),
        RunSpec(run_id="r", model="m", scope=Scope(camera=("--model",))),
        RunSpec(run_id="r", model="m", scope=Scope(camera=("a", "b, c"), until=LATER, min_score=0)),
        RunSpec(run_id="r", model="m", scope=Scope(since=NOON, path="a b/*")),
        RunSpec(run_id="r", model="m", scope=Scope(label="cat", max_score=0.5)),
        RunSpec(run_id="r", model="m", scope=Scope(ids="a" * 64)),
        RunSpec(run_id="r", model="m", stop=Stop(failed_frac=0.1, failed_after=7, stall_s=8.5)),
        RunSpec(run_id="r", model="m", scope=Scope(status="failed"), decode_on="field-node"),
        RunSpec(run_id="r", model="m", snips=Snips(margin_frac=0, quality=1, min_score=0)),
        RunSpec(run_id="r", model="m", then="species:staging"),
    ],
)
def test_the_job_gets_the_spec_that_was_submitted(spec: RunSpec, policy: Path) -> None:
    """It comes as one JSON document; the policy on the machine of the job is not even read."""
    policy.write_text("[stop]\nstall_s = 'never'\n")
    assert spec_of(arguments(spec), job=True) == spec
    policy.write_text("")
    command = shlex.join(["python", "-m", "batch.reprocess", *arguments(spec)])
    runs = ["r", "r-then"] if spec.then else [spec.run_id]
    assert runs_of(command) == runs
    assert runs_of(command[: command.index("--spec") + 20]) == runs, "cut in a log"

    words = ["--model", spec.model, *scope_arguments(spec.scope)]
    assert spec_of(words).scope == spec_of(words, job=True).scope == spec.scope


@pytest.mark.parametrize("job", [False, True])
def test_a_run_by_hand_has_an_option_for_each_field(job: bool) -> None:
    words = ["--model", "m:canary", "--run-id", "r", "--chunk", "7", "--actors", "3"]
    words += ["--threads", "5", "--decode-on", "field", "--commit-s", "0.25", "--megapixels", "12"]
    words += ["--stop-failed-frac", "0.1", "--stop-failed-after", "7", "--stall-s", "8.5"]
    words += ["--snips", "--snip-margin-frac", "0", "--snip-quality", "1", "--snip-min-score", "0"]
    words += ["--camera", "a", "--camera", "b, c", "--since", "2026-05-14T12:00", "--sample", "9"]
    wanted: dict[str, Any] = {"run_id": "r", "model": "m:canary", "chunk": 7, "actors": 3}
    wanted |= {"threads": 5, "decode_on": "field", "commit_s": 0.25, "megapixels": 12}
    wanted |= {"stop": Stop(failed_frac=0.1, failed_after=7, stall_s=8.5)}
    wanted |= {"snips": Snips(margin_frac=0, quality=1, min_score=0)}
    wanted |= {"scope": Scope(camera=("a", "b, c"), since=NOON, sample=9)}
    assert spec_of(words, job=job) == RunSpec.model_validate(wanted)


@pytest.mark.parametrize("words", ["--sample 5", "--latest-per-camera"])
def test_what_chooses_other_images_of_detections_excludes_a_second_run(words: str, policy: Path) -> None:
    with pytest.raises(BadRequest, match="then excludes sample and latest_per_camera"):
        spec_of(["--model", "m", "--then", "species", *words.split()])


def test_the_second_run_has_the_scope_and_the_pace_of_the_first(policy: Path) -> None:
    words = "--model m --then species --camera a --status missing --actors 3 --run-id r"
    spec = spec_of(words.split())
    wanted = {"scope": Scope(camera=("a",)), "view": "m@2", "model": "species", "run_id": "r-then", "actors": 3}
    assert spec.classify_spec("m@2") == ClassifySpec.model_validate(wanted | {"stop": spec.stop})
    long = spec.model_copy(update={"run_id": "r" * 100})
    assert len(long.classify_spec("m@2").run_id) == 100


def test_a_submitted_spec_with_a_wrong_field_is_refused() -> None:
    with pytest.raises(BadRequest, match="--spec: chunks: unknown field, did you mean chunk"):
        spec_of(["--spec", '{"run_id": "r", "model": "m", "chunks": 1}'], job=True)


@pytest.mark.parametrize(
    ("kind", "commands"),
    [
        (RunSpec, (batch.reprocess.main, cli.reprocess.reprocess)),
        (ClassifySpec, (batch.classify.__main__.main, cli.reprocess.classify)),
    ],
)
def test_every_field_of_a_spec_is_an_option_of_both_commands(kind: type[PassSpec], commands: tuple[Any, ...]) -> None:
    fields = {*kind.model_fields, *Scope.model_fields} - {"scope", "stop"}
    fields |= {"stop_failed_frac", "stop_failed_after", "stall_s", "free_mib"}
    if kind is RunSpec:
        fields |= {f"snip_{name}" for name in Snips.model_fields}
    for command in commands:
        own = set(inspect.signature(command).parameters)
        others = {"json_spec", "dry_run", "needed", "publishes", "concurrent", "follow", "fmt"}
        others |= {"here", "archive"}
        assert own - others == fields
    for command in (cli.filters.run, cli.filters.rerun):
        assert set(FilterScope.model_fields) <= set(inspect.signature(command).parameters)
    assert "status" not in FilterScope.model_fields


def test_limits_that_are_not_given_are_those_of_the_policy(policy: Path) -> None:
    policy.write_text("[stop]\nfailed_frac = 0.25\nstall_s = 60\n")
    assert run_spec(model="m").stop == Stop(failed_frac=0.25, stall_s=60)
    assert run_spec(model="m", stall_s=5).stop == Stop(failed_frac=0.25, stall_s=5)


def test_a_model_is_needed() -> None:
    require_model(run_spec(model="m"))
    with pytest.raises(BadRequest, match="--model is required: name, name@version or name:alias"):
        require_model(run_spec())


def test_a_list_of_images_is_kept_with_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_TABLES", str(tmp_path / "tables"))
    listed = tmp_path / "few.csv"
    listed.write_text("media_sha256\n" + "b" * 64 + "\n" + "a" * 64 + "\n")
    spec = spec_of(["--model", "m", "--ids", str(listed)])
    assert spec.scope.ids is not None
    kept = tmp_path / "tables" / "scopes" / f"{spec.scope.ids}.txt"
    assert not kept.exists(), "who only plans writes nothing"
    keep_ids(str(tmp_path / "tables"), spec.scope.ids)
    assert kept.read_text().split() == ["a" * 64, "b" * 64]
    assert spec_of(arguments(spec), job=True) == spec


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"since": "noon"}, "--since: invalid time 'noon': use 2026-05-01 or 2026-05-01T12:00"),
        ({"camera": ["a", ""]}, "--camera: String should have at least 1 character"),
        ({"stop_failed_frac": 2.0}, "--stop-failed-frac: Input should be less than or equal to 1"),
        (
            {"chunk": -1, "actors": -1},
            "--actors: Input should be greater than or equal to 0; --chunk: Input should be greater than or equal to 0",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run_spec(**{"model": "m"} | options)
    assert str(caught.value).startswith(words)


SNIPS = "[snips]\nmargin_frac = 0.3\nquality = 70\nmin_score = 0.6\n"


def test_without_the_option_there_are_no_snips(policy: Path) -> None:
    policy.write_text(SNIPS)
    assert run_spec(model="m").snips is None
    assert spec_of(["--model", "m", "--no-snips"]).snips is None


def test_settings_of_snips_that_are_not_given_are_those_of_the_policy(policy: Path) -> None:
    policy.write_text(SNIPS)
    snips = Snips(margin_frac=0.3, quality=70, min_score=0.6)
    assert spec_of(["--model", "m", "--snips"]).snips == snips
    given = ["--snip-quality", "80", "--snip-min-score", "off"]
    assert spec_of(["--model", "m", "--snips", *given]).snips == Snips(margin_frac=0.3, quality=80)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snip_quality": 101}, "--snip-quality: Input should be less than or equal to 100"),
        ({"snip_margin_frac": -0.1}, "--snip-margin-frac: Input should be greater"),
        ({"snip_min_score": "some"}, "--snip-min-score: Input should be a valid number"),
        ({"snips": False, "snip_quality": 90}, "--snip-quality needs --snips"),
    ],
)
def test_wrong_options_of_snips_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run_spec(**{"model": "m", "snips": True} | options)
    assert str(caught.value).startswith(words)


CLASSIFY: list[dict[str, Any]] = [
    {"labels": ("animal", "wild boar"), "margin_frac": 0.25, "view": "trial"},
    {"least_score": 0.6, "min_side_px": 24.0, "scope": Scope(camera=("north",))},
    {"stop": Stop(failed_frac=0.1, failed_after=5, stall_s=60), "scope": Scope(sample=9)},
]


@pytest.mark.parametrize("fields", CLASSIFY)
def test_the_job_gets_the_spec_of_a_classify_run(fields: dict[str, Any]) -> None:
    spec = ClassifySpec.model_validate({"run_id": "r", "model": "m@1"} | fields)
    assert spec_of(arguments(spec), ClassifySpec, job=True) == spec


def test_a_classify_run_by_hand_has_the_same_options() -> None:
    words = ["--model", "m@1", "--run-id", "r", "--labels", "animal,wild boar", "--view", "trial"]
    words += ["--margin-frac", "0.25", "--least-score", "0.6", "--min-side-px", "24"]
    words += ["--camera", "north", "--stall-s", "60", "--actors", "3", "--decode-on", "big"]
    spec = spec_of(words, ClassifySpec, job=True)
    wanted: dict[str, Any] = {"run_id": "r", "model": "m@1", "labels": ("animal", "wild boar")}
    wanted |= {"view": "trial", "margin_frac": 0.25, "least_score": 0.6, "min_side_px": 24.0}
    wanted |= {"scope": Scope(camera=("north",)), "stop": Stop(stall_s=60), "actors": 3}
    assert spec == ClassifySpec.model_validate(wanted | {"decode_on": "big"})


def test_labels_are_named_once_each() -> None:
    words = ["--model", "m", "--labels", "deer, fox,deer,"]
    assert spec_of(words, ClassifySpec).labels == ("deer", "fox")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": " , "}, "--labels: name at least one"),
        ({"margin_frac": 2.1}, "--margin-frac: Input should be less than or equal to 2"),
    ],
)
def test_wrong_options_of_a_classify_run_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        make_spec(ClassifySpec, **{"model": "m"} | options)
    assert words in str(caught.value)


@pytest.mark.parametrize("option", ["--snips"])
def test_options_of_detection_runs_are_rejected_for_a_classify_run(option: str) -> None:
    app = typer.Typer()

    @app.command()
    @takes_spec(ClassifySpec)
    def command(spec: ClassifySpec) -> None: ...

    done = CliRunner().invoke(app, ["--model", "m", option, "1"])
    assert (done.exit_code, f"No such option: {option}" in done.output) == (2, True)
