"""Every command explains itself, and every error is one line and a documented exit code."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import duckdb
import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError

import cli.main
import resight
from batch.jobs.exit_codes import EXIT_CODES
from model_store import errors
from model_store.lazy_imports import StandIn
from tests.cli.conftest import Done, Resight
from tests.fixtures_local import ROOT
from tests.support import cli_page

HEAVY = {"ray", "duckdb", "deltalake", "pyarrow", "numpy", "pandas", "cv2", "onnx", "onnxruntime", "fastapi"}
HEAVY |= {"fsspec", "httpx2", "asyncio", "psutil", "structlog", "prometheus_client"}
TREE = dict(cli_page.commands())


@pytest.fixture
def failing(resight: Resight, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], Done]:
    """Return a command that fails with an error while it runs."""

    def run(error: Exception) -> Done:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr("cli.archive.query", fail)
        return resight("sql", "select 1")

    return run


def test_every_command_has_help_with_an_example_and_every_option_says_what_it_is(resight: Resight) -> None:
    for words, command in TREE.items():
        text = resight(*words.split(), "--help").ok()
        assert words in text.partition("Example: ")[2]
        unexplained = [p.name for p in command.params if p.name != "help" and not getattr(p, "help", None)]
        assert unexplained in ([], ["version"]), words  # NAME@VERSION says it


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


def test_a_wrong_command_line_ends_with_2_and_points_to_the_help(resight: Resight) -> None:
    for wrong in (["deer"], ["models", "deer"], ["sql"], ["ingest", "--deer"], ["up", "--port", "99999"]):
        done = resight(*wrong)
        assert done.code == 2
        assert "Traceback" not in done.err
        assert "--help" in done.err


def test_an_error_of_ours_is_one_line_and_its_exit_code(failing: Callable[[Exception], Done]) -> None:
    for kind, code in EXIT_CODES.items():
        text = failing(kind("cam[1]/[/x] is [bold]odd[/bold]")).refused(code)
        assert text == "error cam[1]/[/x] is [bold]odd[/bold]\n"
    assert errors.ImageError not in EXIT_CODES, "it takes the code of its kind"
    assert EXIT_CODES[errors.ResightError] == 1


def test_a_command_without_a_good_token_names_the_variable(failing: Callable[[Exception], Done]) -> None:
    for kind in (errors.Unauthorized, errors.Forbidden):
        text = failing(kind("send the header")).refused(2)
        assert "send the header. Commands send the token in RESIGHT_TOKEN" in text


FULL = "No space left on device; free some space there"
ASYNC = {"exception_type": "IO", "exception_message": '"x": No space left on device', "errno": "28"}
DAMAGED = "no file; 'resight doctor --digests' lists lost and damaged files of the tables"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (duckdb.IOException("IO Error:\n  no\n  file\n\nLINE 1: create view\n   ^^^"), 7, DAMAGED),
        (duckdb.InvalidInputException('Failed to read file "a/no file'), 7, DAMAGED),
        (duckdb.Error("no file"), 7, DAMAGED),
        (DeltaError("no file"), 7, DAMAGED),
        (pa.ArrowInvalid("no file"), 7, DAMAGED),
        (FileNotFoundError("no file"), 7, "no file\n"),
        (OSError("AWS Error SERVICE_UNAVAILABLE"), 7, "read or write a file: AWS Error SERVICE_UNAVAILABLE\n"),
        (duckdb.TransactionException('Could not write file "x.wal": No space left on device'), 7, FULL),
        (
            duckdb.IOException(f"IO Error: Async write: {json.dumps(ASYNC)}"),
            7,
            f'error cannot read or write a file: "x": {FULL}',
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 7, FULL),
        (duckdb.OutOfMemoryException("Out of Memory Error: 1 GiB used\nSET threads = 1"), 2, "used. The query needs"),
    ],
)
def test_an_error_of_a_library_is_one_line_with_the_way_out(
    failing: Callable[[Exception], Done], error: Exception, code: int, words: str
) -> None:
    text = failing(error).refused(code)
    assert words in text
    assert text.count("\n") == 1


def test_an_error_that_is_not_ours_is_not_hidden(failing: Callable[[Exception], Done]) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())
    with pytest.raises(KeyboardInterrupt):  # DuckDB's text for it
        failing(RuntimeError("Query interrupted"))


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
