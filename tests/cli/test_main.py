"""Every command explains itself, and every error is one line and a documented exit code."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import click
import duckdb
import pyarrow as pa
import pytest
import typer
from deltalake.exceptions import DeltaError

import cli.main
import resight
from batch.jobs.exit_codes import EXIT_CODES
from model_store import errors
from model_store.errors import ResightError
from model_store.lazy_imports import StandIn
from tests.cli.conftest import Resight
from tests.fixtures_local import ROOT


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every leaf of the tree, by its words."""
    below = getattr(group, "commands", None)
    if below is None:
        yield " ".join(path), group
        return
    for name, command in below.items():
        yield from commands(command, (*path, name))


HEAVY = {"ray", "duckdb", "deltalake", "pyarrow", "numpy", "pandas", "cv2", "onnx", "onnxruntime", "fastapi"}
HEAVY |= {"fsspec", "httpx2", "asyncio", "psutil", "structlog", "prometheus_client"}
TREE = dict(commands(typer.main.get_command(cli.main.app)))


def test_the_commands_are_these() -> None:
    assert sorted(TREE) == [
        "antenna work",
        "assertions add",
        "assertions list",
        "classify",
        "compact",
        "deployments add",
        "deployments clock",
        "deployments history",
        "deployments import",
        "deployments list",
        "deployments remove",
        "deployments revert",
        "detect",
        "down",
        "env",
        "export",
        "filters list",
        "filters rerun",
        "filters review",
        "filters run",
        "filters show",
        "import",
        "ingest",
        "layers list",
        "layers off",
        "layers on",
        "logs",
        "metrics",
        "models add",
        "models canary",
        "models history",
        "models list",
        "models pin",
        "models promote",
        "models pull",
        "models release",
        "models reload",
        "models remove",
        "models rollback",
        "models shadow",
        "models show",
        "models unpin",
        "models verify",
        "plan",
        "reprocess",
        "runs attach",
        "runs cancel",
        "runs diff",
        "runs list",
        "runs log",
        "runs prune",
        "runs publish",
        "runs rollback",
        "runs show",
        "serve",
        "sql",
        "status",
        "tokens add",
        "tokens list",
        "tokens revoke",
        "tune",
        "up",
    ]


@pytest.mark.parametrize("words", sorted(TREE))
def test_every_command_has_help_with_an_example(resight: Resight, words: str) -> None:
    text = resight(*words.split(), "--help").ok()
    assert "Example: " in text
    assert words in text.partition("Example: ")[2]


@pytest.mark.parametrize("words", sorted(TREE))
def test_every_option_says_what_it_is(words: str) -> None:
    unexplained = [
        parameter.name
        for parameter in TREE[words].params
        if parameter.name != "help" and not getattr(parameter, "help", None)
    ]
    assert unexplained in ([], ["version"])  # NAME@VERSION says it


def test_help_lists_the_commands(resight: Resight) -> None:
    text = resight("--help").ok()
    for words in TREE:
        assert words.split()[0] in text


def test_version_names_resight_and_its_libraries(resight: Resight) -> None:
    lines = resight("--version").ok().splitlines()
    assert lines[:2] == [f"resight {version('resight')}", f"ray {version('ray')}"]


def test_the_shell_completes_commands(resight: Resight, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--install-completion" in resight("--help").ok()
    monkeypatch.setenv("COMP_WORDS", "resight models pro")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_RESIGHT_COMPLETE", "complete_bash")
    assert resight().ok() == "promote\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ["deer"],
        ["models", "deer"],
        ["sql"],
        ["ingest", "--deer"],
        ["up", "--port", "99999"],
        ["up", "--port", "-1"],
        ["up", "--port", "x"],
    ],
)
def test_a_wrong_command_line_ends_with_2_and_points_to_the_help(resight: Resight, wrong: list[str]) -> None:
    done = resight(*wrong)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "--help" in done.err


@pytest.mark.parametrize("kind", EXIT_CODES)
def test_an_error_of_ours_is_one_line_and_its_exit_code(
    resight: Resight, monkeypatch: pytest.MonkeyPatch, kind: type[ResightError]
) -> None:
    def fail(*_: object) -> None:
        raise kind("cam[1]/[/x] is [bold]odd[/bold]")

    monkeypatch.setattr("cli.archive.query", fail)
    text = resight("sql", "select 1").refused(EXIT_CODES[kind])
    assert text == "error cam[1]/[/x] is [bold]odd[/bold]\n"


@pytest.mark.parametrize("kind", [errors.Unauthorized, errors.Forbidden])
def test_a_command_without_a_good_token_names_the_variable(
    resight: Resight, monkeypatch: pytest.MonkeyPatch, kind: type[ResightError]
) -> None:
    def fail(*_: object) -> None:
        raise kind("send the header")

    monkeypatch.setattr("cli.archive.query", fail)
    assert "send the header. Commands send the token in RESIGHT_TOKEN" in resight("sql", "select 1").refused(2)


@pytest.mark.parametrize(
    "error",
    [
        duckdb.IOException("IO Error:\n  no\n  file"),
        DeltaError("no file"),
        pa.ArrowInvalid("no file"),
        FileNotFoundError("no file"),
    ],
)
def test_what_a_library_says_of_files_is_one_line_and_exit_code_7(
    resight: Resight, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("cli.archive.query", fail)
    text = resight("sql", "select 1").refused(7)
    assert text.endswith("no file\n")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        duckdb.TransactionException('Could not write file "x.wal": No space left on device'),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_full_disk_is_one_line_with_the_way_out(
    resight: Resight, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("cli.archive.query", fail)
    text = resight("sql", "select 1").refused(7)
    assert "No space left on device; free some space there" in text
    assert text.count("\n") == 1


def test_a_query_without_enough_memory_is_one_line_with_the_way_out(
    resight: Resight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise duckdb.OutOfMemoryException("Out of Memory Error: 1 GiB used\nSET threads = 1")

    monkeypatch.setattr("cli.archive.query", fail)
    text = resight("sql", "select 1").refused(2)
    assert text.startswith("error Out of Memory Error: 1 GiB used. The query needs more memory")
    assert "TMPDIR" in text
    assert text.count("\n") == 1


def test_an_error_that_is_not_ours_is_not_hidden(resight: Resight, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("cli.archive.query", fail)
    with pytest.raises(ZeroDivisionError):
        resight("sql", "select 1")


def test_help_loads_no_library(tmp_path: Path) -> None:
    """What a command runs is imported in its module's `with lazy_imports():`, so that help takes no two seconds."""
    code = (
        "import os, sys, runpy\n"
        "os._exit = sys.exit\n"
        "for words in (['--help'], ['reprocess', '--help']):\n"
        "    sys.argv = ['resight.py', *words]\n"
        "    try: runpy.run_module('resight', run_name='__main__')\n"
        "    except SystemExit as end: assert not end.code\n"
        f"loaded = {HEAVY} & sys.modules.keys()\n"
        "assert not loaded, f'{loaded} imported for help'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage: resight reprocess" in done.stdout, "shell completion goes by the name"


def test_a_run_is_planned_without_ray() -> None:
    """Ray reads the token of the cluster when it is imported, so it must be imported after `join`."""
    modules = "batch.planning.nothing_to_do, batch.planning.dry_run, batch.runs.post_run"
    code = f"import sys, {modules}; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_stand_ins_are_only_for_what_is_called() -> None:
    """A stand-in for a constant would be used as it is, and `except` takes none."""
    modules = [m for name, m in sys.modules.items() if name.startswith(("cli.", "batch."))]
    stand_ins = {
        f"{module.__name__}.{name}": value.resolved()
        for module in modules
        for name, value in vars(module).items()
        if type(value) is StandIn
    }
    assert "cli.archive.query" in stand_ins
    for name, real in stand_ins.items():
        assert callable(real) or isinstance(real, ModuleType), name
        assert not (isinstance(real, type) and issubclass(real, BaseException | Enum)), name


def test_the_job_has_help_with_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batch.reprocess", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Example: python -m batch.reprocess" in done.stdout


def test_errors_without_an_own_exit_code_take_that_of_their_kind() -> None:
    assert errors.ImageError not in EXIT_CODES
    assert EXIT_CODES[errors.ResightError] == 1


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 130), (SystemExit(130), 130), (SystemExit(2), 2)])
def test_the_command_ends_without_unloading_modules(
    monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int
) -> None:
    class Ended(Exception):
        pass

    def command() -> None:
        raise end

    def ended(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(cli.main, "main", command)
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: None)
    monkeypatch.setattr("os._exit", ended)
    with pytest.raises(Ended, match=f"^{code}$"):
        resight.main()
