"""Logs of a cluster as people read them, from files as Ray leaves them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from batch.jobs import cluster_logs
from batch.jobs.cluster_logs import LogTail, cluster_files, run_files
from serve.embedded.home_lock import home_lock
from serve.settings import Settings
from tests.cli.conftest import Resight


def ours(second: int, event: str, **fields: object) -> str:
    at = f"2026-11-22T21:00:{second:02}.500000Z"
    return json.dumps({**fields, "event": event, "level": "info", "timestamp": at})


def serves(second: int, message: str, **fields: object) -> str:
    at_ns = int(datetime(2026, 11, 22, 21, 0, second, tzinfo=UTC).timestamp()) * 10**9
    return json.dumps({"message": message, "levelname": "INFO", "timestamp_ns": at_ns, "lineno": 7, **fields})


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The logs of a cluster that has ended."""
    sessions = tmp_path / "cluster" / "ray"
    (sessions / "session_2").mkdir(parents=True)
    (sessions / "session_latest").symlink_to("session_2")
    monkeypatch.setattr(cluster_logs, "folder_of", lambda _: tmp_path / "cluster")
    logs = sessions / "session_2" / "logs"
    logs.mkdir()
    return logs


def test_lines_of_all_processes_are_in_the_order_of_time(logs: Path) -> None:
    out = ":actor_name:ServeReplica:detect:Detector"
    write(logs / "worker-ab-01-77.out", out, ours(1, "loaded", s=0.5), ours(3, "detected", n=[2]))
    write(logs / "serve" / "controller_5.log", serves(2, "Adding 1 replica.", exc_text="Oh\nno"))
    write(logs / "gcs_server.out", "Ray's own")
    found = [(line.source, line.text) for line in LogTail(lambda: cluster_files(logs)).look()]
    assert found == [
        ("detect:Detector 77", "info loaded s=0.5"),
        ("controller_5", "info Adding 1 replica. Oh\n  no"),
        ("detect:Detector 77", "info detected n=[2]"),
    ]


def test_a_line_without_a_time_stays_behind_the_one_before_it(logs: Path) -> None:
    one = write(logs / "a.log", ours(2, "began"), "Traceback", "  in f")
    two = write(logs / "b.log", ours(1, "early"), ours(3, "late"))
    texts = [line.text for line in LogTail(lambda: [one, two]).look()]
    assert texts == ["info early", "info began", "Traceback", "  in f", "info late"]


def test_the_next_look_has_whole_new_lines_and_new_files(logs: Path) -> None:
    file = write(logs / "serve" / "a.log", ours(1, "one"))
    tail = LogTail(lambda: cluster_files(logs))
    assert len(tail.look()) == 1
    with file.open("a") as growing:
        growing.write("two, not yet")
    write(logs / "serve" / "b.log", "three")
    assert [line.text for line in tail.look()] == ["three"]
    write(file, " whole")
    assert [line.text for line in tail.look()] == ["two, not yet whole"]
    file.write_text("rotated\n")
    assert [line.text for line in tail.look()] == ["rotated"]
    assert tail.look() == []


def test_the_first_look_is_at_the_end_of_a_long_file(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_logs, "TAIL_BYTES", 10)
    file = write(logs / "a.log", "first", "second", "third")
    assert [line.text for line in LogTail(lambda: [file]).look()] == ["third"]


def test_a_look_that_finds_no_file_is_the_first_one_too(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are written later are new, however many they are."""
    monkeypatch.setattr(cluster_logs, "TAIL_BYTES", 10)
    tail = LogTail(lambda: cluster_files(logs))
    assert tail.look() == []
    write(logs / "serve" / "a.log", "first", "second", "third")
    assert [line.text for line in tail.look()] == ["first", "second", "third"]


def test_a_file_that_is_removed_during_a_look_has_no_lines(logs: Path) -> None:
    file = write(logs / "a.log", "one")
    tail = LogTail(lambda: [logs / "removed.log", file])
    assert [line.text for line in tail.look()] == ["one"]


def test_what_clients_sent_gives_no_orders_to_a_terminal(logs: Path) -> None:
    file = write(logs / "a.log", ours(1, "refused", path="/\x1b]0;owned\x07"))
    (line,) = LogTail(lambda: [file]).look()
    assert line.text == "info refused path=/?]0;owned?"


def test_the_log_of_a_run_is_that_of_its_own_jobs_of_all_sessions(logs: Path) -> None:
    def job(folder: Path, name: str, run_id: str) -> Path:
        began = f"Running entrypoint for job {name}: python -P -m batch.reprocess --run-id {run_id}"
        return write(folder / f"job-driver-{name}.log", began)

    earlier = logs.parent.parent / "session_1" / "logs"
    own = {job(logs, "resight-a", "a"), job(earlier, "resight-a-2", "a")}
    job(logs, "resight-a-2", "a-2")
    assert set(run_files(Settings(), "a")) == own
    assert run_files(Settings(), "b") == []


def test_the_command_prints_the_newest_lines_last(logs: Path, resight: Resight) -> None:
    write(logs / "serve" / "a.log", *(ours(second, f"e{second}") for second in range(5)))
    done = resight("logs", "--most", "2")
    assert done.ok() == ("2026-11-22T21:00:03.500 a  info e3\n2026-11-22T21:00:04.500 a  info e4\n")
    assert str(logs.name) in done.err
    assert "see: resight runs list" in resight("logs", "--run", "b").refused(2)


def test_a_home_without_a_cluster_has_no_logs(logs: Path, resight: Resight) -> None:
    logs.rmdir()
    assert "no logs of a cluster of" in resight("logs").refused(8)
    assert "no log of run 'b' on this machine; see: resight runs list" in resight("logs", "--run", "b").refused(2)
    settings = Settings()
    with home_lock(settings, "http://127.0.0.1:1"):
        first, second = resight("logs").err.splitlines()
    assert first == "'resight serve' serves this home, and writes its log to its own terminal"
    assert second.startswith("error no logs of a cluster of")


def test_the_log_of_a_run_on_this_machine_needs_no_cluster(resight: Resight, home: Path) -> None:
    head = {"event": "job", "runs": ["r"], "module": "batch.reprocess", "node": "n", "pid": 1, "at": 1.0}
    job = json.dumps(head)
    write(home / "logs" / "runs" / "r.log", job, ours(1, "planned", requested=3))
    done = resight("logs", "--run", "r")
    assert "r  info planned requested=3" in done.ok()
    assert str(home / "logs" / "runs") in done.err
