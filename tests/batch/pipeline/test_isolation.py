"""Test calls in a child process: a function that kills its process does not kill the caller."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch.pipeline import isolation
from batch.pipeline.isolation import ProcessDied, isolated
from batch.pipeline.stage import StageProcess
from batch.runs.spec import RunSpec
from model_store.store import ModelVersion
from tests.batch.lethal import die_of
from tests.cluster.lethal import LethalStage
from tests.fixtures_local import photo, write_files


def test_an_error_that_cannot_be_pickled_is_raised_as_text() -> None:
    with pytest.raises(RuntimeError, match="LocalError: not by name"):
        isolated(die_of)("local")


def test_a_single_death_is_not_the_argument_s_fault(tmp_path: Path) -> None:
    """The second attempt raises for another reason: the file has been removed."""
    (tmp_path / "once").touch()
    with pytest.raises(FileNotFoundError):
        isolated(die_of)(str(tmp_path / "once"))


def test_a_process_whose_caller_was_killed_during_a_call_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation.signal, "signal", lambda *_: None)
    monkeypatch.setattr(Path, "write_text", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    ours.send(())
    isolation._work(theirs, ours.close)  # its answer has no reader


def test_threads_do_not_share_a_process() -> None:
    """The argument that kills a process is identified, regardless of what other threads do."""
    call = isolated(die_of)

    def outcome(value: str) -> str:
        try:
            return call(value) and "alive"
        except ProcessDied as died:
            return str(died)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(outcome, ["good", "bad"] * 3))
    assert found == ["alive", "SIGSEGV"] * 3


@pytest.mark.parametrize("careful", [False, True])
def test_a_careful_stage_makes_a_failed_row_of_what_kills_its_reader(
    tmp_path: Path, motion: ModelVersion, careful: bool
) -> None:
    """A stage that is not careful reads in its own process."""
    cat = photo("cat")
    write_files(tmp_path, {"1.jpg": cat, "lethal.jpg": cat, "2.jpg": cat})
    names = ["1.jpg", "lethal.jpg", "2.jpg"] if careful else ["1.jpg", "2.jpg"]
    digest = hashlib.sha256(cat).hexdigest()
    rows = [{"media_sha256": digest, "source_root": str(tmp_path), "path": name} for name in names]
    stage = LethalStage(StageProcess("node", careful, None), RunSpec(run_id="r", model="motion@1"), motion)
    images = [image for group in stage._groups(rows) for image in group]
    codes = [image.error_code for image in images]
    assert codes == ([None, "crashed_reader", None] if careful else [None, None])
    assert all("SIGSEGV" in str(image.error_detail) for image in images if image.error_code)
