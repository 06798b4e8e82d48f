"""The command line of a classify run: what is asked reaches the job as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from batch.classify.options import classify_arguments, classify_spec, takes_classify_options
from batch.classify.spec import ClassifySpec
from batch.policy import Stop
from batch.scope import Scope
from model_store.errors import BadRequest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path))


def parsed(words: list[str]) -> ClassifySpec:
    """What the command gets."""
    got: list[ClassifySpec] = []
    app = typer.Typer()

    @app.command()
    @takes_classify_options
    def command(spec: ClassifySpec) -> None:
        got.append(spec)

    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return got[0]


SPECS: list[dict[str, Any]] = [
    {},
    {"labels": ("animal", "wild boar"), "margin_frac": 0.25, "view": "trial"},
    {"least_score": 0.6, "min_side_px": 24.0, "scope": Scope(camera=("north",))},
    {"actors": 3, "threads": 2, "commit_s": 1.5, "megapixels": 50, "decode_on": "big"},
    {"stop": Stop(failed_frac=0.1, failed_after=5, stall_s=60), "scope": Scope(sample=9)},
]


@pytest.mark.parametrize("fields", SPECS)
def test_the_job_is_told_what_was_asked(fields: dict[str, Any]) -> None:
    spec = ClassifySpec.model_validate({"run_id": "r", "model": "m@1"} | fields)
    assert parsed(classify_arguments(spec)) == spec


def test_without_options_it_is_all_that_production_shows() -> None:
    spec = parsed(["--model", "m"])
    assert (spec.labels, spec.view, spec.margin_frac, spec.scope) == (
        (),
        "production",
        0.0,
        Scope(),
    )
    assert spec.run_id


def test_labels_are_named_once_each() -> None:
    assert parsed(["--model", "m", "--labels", "deer, fox,deer,"]).labels == ("deer", "fox")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": " , "}, "--labels: name one at least"),
        ({"margin_frac": 2.1}, "--margin-frac: Input should be less than or equal to 2"),
        ({"least_score": -0.1}, "--least-score: Input should be greater than or equal to 0"),
        ({"until": "noon"}, "--until: invalid time 'noon'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        classify_spec(**{"model": "m"} | options)
    assert words in str(caught.value)


def test_options_of_runs_that_detect_are_none_of_it() -> None:
    app = typer.Typer()

    @app.command()
    @takes_classify_options
    def command(spec: ClassifySpec) -> None: ...

    for word in ("--snips", "--chunk"):
        assert CliRunner().invoke(app, ["--model", "m", word, "1"]).exit_code == 2
