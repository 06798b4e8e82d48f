"""The example schedules are well formed, and say only what the commands understand."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from batch.schedule.policy import Policy, read_policy
from cli.main import app
from serve.settings import Settings
from tests.fixtures_local import ROOT
from tests.support.kuberay import containers, named

PLACE = ROOT / "examples" / "schedules"
FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""Minute, hour, day, month, weekday."""


def crontab() -> tuple[dict[str, str], list[tuple[list[str], str]]]:
    """Variables, and five fields and the command of each line."""
    variables: dict[str, str] = {}
    lines: list[tuple[list[str], str]] = []
    for line in (PLACE / "crontab").read_text().splitlines():
        if assigned := re.fullmatch(r"([A-Z_]+)=(.*)", line):
            variables[assigned[1]] = assigned[2]
        elif line and not line.startswith("#"):
            *fields, command = line.split(maxsplit=5)
            lines.append((fields, command))
    return variables, lines


def unit(name: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None, strict=True)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string((PLACE / name).read_text())
    return found


def commands() -> Iterator[tuple[str, list[str]]]:
    for _, command in crontab()[1]:
        words = shlex.split(command.partition(" 2>&1 ")[0])
        program = next(i for i, word in enumerate(words) if word.rpartition("/")[2] == "resight")
        yield "crontab", words[program:]
    service = unit("resight-reprocess.service")["Service"]
    for key in ("ExecStartPre", "ExecStart"):
        yield key, shlex.split(service[key].lstrip("-"))
    for one in containers(named("CronJob")["spec"]["jobTemplate"]["spec"]["template"]):
        words = [*one["command"], *one["args"]]
        yield "schedule.yaml", shlex.split(words[2].partition(" > ")[0]) if words[0] == "sh" else words


COMMANDS = list(commands())


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{a} {b[1]}" for a, b in COMMANDS])
def test_every_command_and_option_exists(where: str, words: list[str]) -> None:
    program, name, *rest = words
    assert program.rpartition("/")[2] == "resight"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, rest, resilient_parsing=False).close()


def test_every_schedule_asks_the_policy() -> None:
    asking = [where for where, words in COMMANDS if "--if-needed" in words]
    assert asking == ["crontab", "ExecStart", "schedule.yaml"]


def test_the_lines_of_the_crontab_have_five_fields_in_range() -> None:
    variables, lines = crontab()
    assert lines
    for fields, _ in lines:
        for field, (least, most) in zip(fields, FIELDS, strict=True):
            assert field == "*" or least <= int(field.removeprefix("*/")) <= most
    assert {f"RESIGHT_{name.upper()}" for name in Settings.model_fields} >= {
        name for name in variables if name.startswith("RESIGHT_")
    }
    assert not any("%" in command for _, command in lines)  # cron ends a command there


def test_each_line_of_the_logs_has_its_time() -> None:
    variables, lines = crontab()
    assert all(' 2>&1 | sh -c "$STAMP" >> ' in command for _, command in lines)
    told = '{"a": "x\\ny %s"}'
    words = ["sh", "-c", variables["STAMP"]]
    done = subprocess.run(words, input=f"{told}\n", capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(rf"[0-9-]{{10}}T[0-9:]{{8}}Z {re.escape(told)}\n", done.stdout)


def test_the_cron_job_runs_one_at_a_time_and_does_not_insist() -> None:
    spec = named("CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert len(spec["schedule"].split()) == 5
    assert spec["jobTemplate"]["spec"]["backoffLimit"] <= 1
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_policy_is_the_default_one_and_names_every_field() -> None:
    file = PLACE / "policy.toml"
    assert read_policy(file) == Policy()
    assert names(tomllib.loads(file.read_text())) == names(as_file(Policy().model_dump()))


def as_file(value: Any) -> Any:
    return {name: as_file(below) for name, below in value.items()} if isinstance(value, dict) else 0


def names(value: dict[str, Any], path: str = "") -> set[str]:
    found: set[str] = set()
    for name, below in value.items():
        found |= names(below, f"{path}{name}.") if isinstance(below, dict) else {path + name}
    return found
