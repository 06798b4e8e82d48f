"""--snips and its settings: from the options, else from the policy, and back to a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch.options import arguments, run_spec
from batch.policy import Snips, read_policy
from batch.spec import RunSpec
from model_store.errors import BadRequest
from tests.batch.test_options import spec_of


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text("[snips]\nmargin_frac = 0.3\nquality = 70\nmin_score = 0.6\n")
    monkeypatch.setenv("RESIGHT_POLICY", str(file))
    return file


def test_without_the_option_there_are_none(policy: Path) -> None:
    assert run_spec(model="m").snips is None
    assert spec_of(["--model", "m", "--no-snips"]).snips is None


def test_what_is_not_given_is_the_policys(policy: Path) -> None:
    assert spec_of(["--model", "m", "--snips"]).snips == Snips(
        margin_frac=0.3, quality=70, min_score=0.6
    )
    given = ["--snip-quality", "80", "--snip-min-score", "off"]
    assert spec_of(["--model", "m", "--snips", *given]).snips == Snips(margin_frac=0.3, quality=80)


def test_without_a_policy_the_defaults_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path))
    assert run_spec(model="m", snips=True).snips == Snips()
    assert Snips() == Snips(margin_frac=0.1, quality=90, min_score=None)


@pytest.mark.parametrize(
    "snips", [Snips(), Snips(margin_frac=0, quality=1, min_score=0), Snips(min_score=0.25)]
)
def test_the_arguments_mean_the_same_where_the_policy_is_another(
    policy: Path, snips: Snips
) -> None:
    spec = RunSpec(run_id="r", model="m", snips=snips)
    assert spec_of(arguments(spec)) == spec
    policy.write_text("[snips]\nquality = 'best'\n[stop]\n")
    assert spec_of(arguments(spec)) == spec  # it is not even read


def test_no_snips_are_no_arguments() -> None:
    assert not [word for word in arguments(RunSpec(run_id="r", model="m")) if "snip" in word]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snip_quality": 0}, "--snip-quality: Input should be greater than or equal to 1"),
        ({"snip_quality": 101}, "--snip-quality: Input should be less than or equal to 100"),
        ({"snip_margin_frac": -0.1}, "--snip-margin-frac: Input should be greater"),
        ({"snip_min_score": "1.5"}, "--snip-min-score: Input should be less"),
        ({"snip_min_score": "some"}, "--snip-min-score: Input should be a valid number"),
        ({"snips": False, "snip_quality": 90}, "--snip-quality needs --snips"),
        ({"snips": False, "snip_margin_frac": 0.0}, "--snip-margin-frac needs --snips"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run_spec(**{"model": "m", "snips": True} | options)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("line", ["quality = 101", "margin_frac = 3", "min_score = -1", "size = 2"])
def test_a_policy_out_of_bounds_is_refused(policy: Path, line: str) -> None:
    policy.write_text(f"[snips]\n{line}\n")
    with pytest.raises(BadRequest, match=rf"policy.toml: snips\.{line.split()[0]}"):
        read_policy(policy)
