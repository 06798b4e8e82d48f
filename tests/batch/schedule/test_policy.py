"""Test the policy file: its defaults, what it rejects, and when the weekly window is open."""

from __future__ import annotations

import tomllib
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from batch.schedule.decide import Action
from batch.schedule.policy import DAYS, OFF, WEEK, DueConditions, Gates, Policy, Weekly, read_policy
from model_store.errors import InvalidPolicy
from tests.fixtures_local import ROOT

MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1))
WINDOWS = st.builds(
    Weekly,
    day=st.sampled_from(DAYS),
    start=st.times().map(lambda t: t.replace(tzinfo=None)),
    hours=st.sampled_from([0.5, 6, 24, 100, 168]),
)


def read(place: Path, text: str) -> Policy:
    file = place / "policy.toml"
    file.write_text(text)
    return read_policy(file)


def test_without_a_file_the_defaults_hold_unless_somebody_named_it(tmp_path: Path) -> None:
    assert read_policy(tmp_path / "none.toml") == Policy()
    with pytest.raises(InvalidPolicy, match="no policy file .*none.toml: correct RESIGHT_POLICY"):
        read_policy(tmp_path / "none.toml", required=True)


def test_what_the_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    policy = read(tmp_path, "[due]\nthreshold_delta = 0.1\n[due.weekly]\nday = 'mon'\n")
    assert policy.due == DueConditions(threshold_delta=0.1, weekly=Weekly(day="mon"))
    assert (policy.stop, policy.gates) == (Policy().stop, Policy().gates)
    assert (Weekly().day, Weekly().start, Weekly().hours) == ("sun", time(2), 6.0)


def test_off_is_how_toml_says_none(tmp_path: Path) -> None:
    policy = read(
        tmp_path,
        '[due]\nweekly = "off"\n[gates]\nmax_lost_verified = "off"\nmax_failed_frac = "off"\n'
        'min_coverage_frac = "off"\nmax_lost_frac = 0.5\n',
    )
    assert policy.due.weekly is None
    assert policy.gates == Gates(
        max_lost_verified=None, max_failed_frac=None, min_coverage_frac=None, max_lost_frac=0.5
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[due]\nnew_modle = true", r"due\.new_modle: unknown field, did you mean new_model\?"),
        ("[dew]\n", r"dew: unknown field, did you mean due\?"),
        ("[due.weekly]\nx = 1", r"due\.weekly\.x: unknown field; available: day, start, hours"),
        ("[due]\nthreshold_delta = -1", r"due\.threshold_delta"),
        ("[due.weekly]\nstart = 2", r"due\.weekly\.start.*02:00:00"),
        ("[due.weekly]\nstart = '02:00:00Z'", r"due\.weekly\.start.*leave out the time zone"),
        ("[due]\nweekly = 'off'\nnew_model = false", r"new_model = false waits.*--model NAME"),
        ("[due", r"policy\.toml: "),
    ],
)
def test_what_is_wrong_is_refused_with_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidPolicy, match=rf"policy\.toml.*{message}|{message}"):
        read(tmp_path, text)


@pytest.mark.parametrize("data", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "policy.toml"
    file.mkdir() if data is None else file.write_bytes(data)
    with pytest.raises(InvalidPolicy, match="policy.toml"):
        read_policy(file)


def test_a_time_may_be_toml_or_text(tmp_path: Path) -> None:
    wanted = Weekly(start=time(22, 30))
    for written in ("22:30:00", "'22:30'"):
        assert read(tmp_path, f"[due.weekly]\nstart = {written}").due.weekly == wanted


SUNDAY = datetime(2026, 5, 17)


@pytest.mark.parametrize(
    ("window", "opens", "closes"),
    [
        (Weekly(), SUNDAY + timedelta(hours=2), SUNDAY + timedelta(hours=8)),
        (
            Weekly(day="sat", start=time(22), hours=8),  # over midnight
            SUNDAY - timedelta(hours=2),
            SUNDAY + timedelta(hours=6),
        ),
        (
            Weekly(day="sun", start=time(23, 30), hours=30),  # into Tuesday
            SUNDAY + timedelta(hours=23.5),
            SUNDAY + timedelta(hours=53.5),
        ),
        (Weekly(day="thu", start=time(0), hours=0.5), datetime(2026, 5, 14), datetime(2026, 5, 14, 0, 30)),
    ],
)  # fmt: skip
def test_the_window_has_its_first_moment_and_not_its_last(window: Weekly, opens: datetime, closes: datetime) -> None:
    tick = timedelta(microseconds=1)
    for moment, is_open in (
        (opens - tick, False),
        (opens, True),
        (closes - tick, True),
        (closes, False),
        (opens + WEEK - tick, False),
        (opens + WEEK, True),
    ):
        assert window.is_open(moment) is is_open, moment
    assert window.opens_next(opens - tick) == opens
    assert window.opens_next(opens) == opens + WEEK


@given(WINDOWS, MOMENTS)
def test_a_window_opens_once_a_week_on_its_day(window: Weekly, now: datetime) -> None:
    opened, after = window.opened(now), window.opens_next(now)
    assert opened <= now < after
    assert after - opened == timedelta(days=7)
    assert opened.strftime("%a").lower() == window.day
    assert opened.time() == window.start
    assert window.is_open(now) == (now - opened < timedelta(hours=window.hours))
    assert window.is_open(after)


def fields(model: type[BaseModel], section: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, field in model.model_fields.items():
        kinds = [k for k in (field.annotation, *get_args(field.annotation)) if isinstance(k, type)]
        below = [kind for kind in kinds if issubclass(kind, BaseModel)]
        found += [] if section == "" else [(section, name)]
        for kind in below:
            found += fields(kind, f"{section}.{name}".lstrip("."))
    return found


def test_every_field_is_on_the_page_with_its_default() -> None:
    page = (ROOT / "docs/reference" / "policy.md").read_text()
    for section, name in fields(Policy, ""):
        part = page.partition(f"`[{section}]`")[2].partition("\n`[")[0]
        (row,) = [line for line in part.splitlines() if line.startswith(f"| `{name}` |")]
        value: Any = Policy()
        for word in (*section.split("."), name):
            value = getattr(value, word)
        shown = row.split("|")[2].strip().strip("`")
        if isinstance(value, Weekly):
            assert shown == "a table"
        else:
            assert tomllib.loads(f"x = {shown}")["x"] == (OFF if value is None else value)


def test_every_action_is_on_the_page() -> None:
    page = (ROOT / "docs/reference" / "policy.md").read_text()
    for action in get_args(Action):
        assert f"\n| `{action}` |" in page
