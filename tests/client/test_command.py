"""The command `resight-client`: exit codes, progress, and a real server."""

from __future__ import annotations

import ast
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

import resight_client.command
import resight_client.send
import resight_client.server
from resight_client.command import main
from tests.client.shelf import Shelf, Station, problem, sha256_of
from tests.fixtures_local import ROOT, motion_store, photo, rows_of
from tests.serve.api.test_images import Desk
from tests.serve.http_client import engine_over

SEND = ("send", "--url", "http://resight", "--model", "deer", "--camera", "north", "--give-up-s=0")


@pytest.fixture
def shelf(station: Station, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """The server of every client that is made."""

    def client(**args: Any) -> httpx2.Client:
        return real(**{**args, "transport": station.shelf})

    real = httpx2.Client
    monkeypatch.setattr(resight_client.server.httpx2, "Client", client)
    monkeypatch.setenv("XDG_STATE_HOME", str(station.card.parent))
    return station.shelf


def test_exit_codes(station: Station, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*SEND, str(station.card))
    shelf.answers.append(httpx2.ConnectError("no route"))
    assert main(words) == 3
    assert "0 sent, 3 waiting" in capsys.readouterr().out
    shelf.answers.append(problem(401, "unauthorized"))
    assert main(words) == 2
    done = capsys.readouterr()
    assert "stopped: 401 the unauthorized" in done.err
    assert done.out == "0 sent, 3 waiting\n"
    shelf.problems[sha256_of(b"a.jpg")] = problem(400, "image-unreadable")
    assert main(words) == 1
    done = capsys.readouterr()
    assert done.out == "2 sent, 1 refused\n"
    assert "a.jpg: 400 the image-unreadable" in done.err
    shelf.problems.clear()
    assert main((*words, "--again")) == 0
    assert capsys.readouterr().out == "1 sent, 2 there already\n"
    station.put("new.jpg", at_s=time.time())
    assert main((*words, "--settle-s=60")) == 3
    assert capsys.readouterr().out == "0 sent, 3 there already, 1 still being written\n"
    with pytest.raises(SystemExit) as left:
        main(("send",))
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--url=http://me:secret@/",), "invalid URL 'http:///'"),
        (("--token=\n",), "invalid token"),
        (("--record=/dev/null/record",), "the record /dev/null/record cannot be used"),
        (("--camera=\udce9",), "surrogates not allowed"),
    ],
)
def test_wrong_options_are_errors(
    station: Station, shelf: Shelf, capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...], message: str
) -> None:
    assert main((*SEND, str(station.card), *wrong)) == 2
    assert message in capsys.readouterr().err


def test_progress_is_printed_unless_quiet(
    station: Station, shelf: Shelf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resight_client.send, "PROGRESS_S", -1.0)
    main((*SEND, str(station.card)))
    assert caplog.messages[-1] == f"3 sent; at {station.card / 'DCIM/100/c.jpeg'}"
    caplog.clear()
    main((*SEND, str(station.card), "--quiet"))
    assert not caplog.messages


def test_an_interrupt_says_how_to_resume(station: Station, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    shelf.on_store = interrupt
    assert main((*SEND, str(station.card))) == 130
    assert "repeat the command to resume" in capsys.readouterr().err


def test_the_client_needs_only_httpx2_and_the_syntax_of_python_3_9() -> None:
    modules = set[str]()
    for path in (ROOT / "client").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add((node.module or "").partition(".")[0])
    assert modules - set(sys.stdlib_module_names) == {"httpx2", "resight_client"}


class InProcess(httpx2.BaseTransport):
    """Requests to the API of a desk, on one event loop."""

    def __init__(self, desk: Desk, runner: asyncio.Runner) -> None:
        self._desk, self._runner = desk, runner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        async def send() -> httpx2.Response:
            async with self._desk._client() as client:
                return await client.request(
                    request.method, request.url, content=request.read(), headers=request.headers
                )

        answer = self._runner.run(send())
        return httpx2.Response(answer.status_code, content=answer.content)


def test_a_real_server_keeps_each_content_once(station: Station, tmp_path: Path) -> None:
    station.put("a.jpg", photo("cat"))
    station.put("DCIM/100/c.jpeg", photo("cat"))
    motion_store(tmp_path / "models", "1")
    with asyncio.Runner() as runner:
        engine = runner.run(engine_over(tmp_path / "models"))
        real = Desk(engine, tmp_path)
        for _ in range(2):  # the second time with a new record, as on another machine
            summary = station.send(model="blobs", transport=InProcess(real, runner))
            assert (summary.sent + summary.kept, summary.refused) == (2, 1)
            station.record.unlink()
        runner.run(real.records.close())
        engine.stop()
    assert [row["camera_id"] for row in rows_of(real.tables, "media")] == ["north"]
