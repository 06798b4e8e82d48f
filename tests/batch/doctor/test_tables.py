"""Each defect of the tables is one finding."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import batch.doctor.tables
from batch.doctor.tables import RULES, check_files, check_rows
from tests.batch.doctor.conftest import STATEMENT, Home
from tests.fixtures_local import put_results, put_rows, result_rows, rows_of

LATER, EARLIER = datetime.now(UTC) + timedelta(days=1), datetime(2020, 1, 1, tzinfo=UTC)
SOON = datetime.now(UTC) + timedelta(minutes=30)
OTHER, UNSEEN = "f" * 64, "e" * 64
Damage = Callable[[Home], None]


def again(name: str) -> Damage:
    def damage(home: Home) -> None:
        put_rows(home.tables, name, max(rows_of(home.tables, name), key=lambda row: row.get("method") == "human"))

    return damage


def result(**more: Any) -> Damage:
    """Add a result of an image that is not catalogued."""
    return lambda home: put_results(home.tables, result_rows([OTHER], home.key, **{"run_id": "r1"} | more))


def row(name: str, **more: object) -> Damage:
    def damage(home: Home) -> None:
        keys = {"settings_key": "s", "classifier_key": "c", "embedder_key": "c", "detection_id": "d", "run_id": "r1"}
        put_rows(home.tables, name, {"inference_key": home.key, "media_sha256": home.sha, **keys, **more})

    return damage


def statement(**more: object) -> Damage:
    added = {**STATEMENT, "assertion_id": "9" * 64, "asserted_at": datetime.now(UTC), **more}
    return lambda home: put_rows(home.tables, "assertions", {"media_sha256": home.sha, **added})


def table_lost(name: str) -> Damage:
    return lambda home: shutil.rmtree(f"{home.tables.url}/{name}")


def rows_lost(home: Home) -> None:
    home.tables.snapshot("results").delete(f"run_id = 'r1' and media_sha256 <> '{home.sha}'")


DEFECTS: list[tuple[Damage, str, str]] = [
    *((again(n), n, "1 rows exist more than once") for n in ("media", "snips", "layers")),
    (again("assertions"), "assertions", "1 rows exist more than once"),
    (result(finished_at=LATER, run_id="upload"), "results", f"1 results of images .* older, such as {OTHER}"),
    (row("snips", media_sha256=UNSEEN), "snips", f"1 rows without the result .* such as {UNSEEN}"),
    (row("classifications", media_sha256=UNSEEN), "classifications", "1 rows without the result"),
    (row("embeddings", media_sha256=UNSEEN), "embeddings", "1 rows without the result"),
    (row("snips", settings_key="s2", run_id="r9"), "snips", "rows of 1 runs .* such as r9"),
    (row("classifications", classifier_key="c2", run_id="r9"), "classifications", "rows of 1 runs .* such as r9"),
    (row("embeddings", embedder_key="c2", run_id="r9"), "embeddings", "rows of 1 runs .* such as r9"),
    (result(run_id="r9", finished_at=EARLIER), "results", "rows of 1 runs .* such as r9"),
    (statement(media_sha256=OTHER, asserted_at=LATER), "assertions", "human statements about 1 images"),
    (statement(inference_key="other"), "assertions", "1 human statements about results .* such as 999"),
    (statement(withdraws="8" * 64), "assertions", "1 statements withdraw .* such as 999"),
    (statement(method="machine", layer_id="m" * 64), "assertions", "statements of 1 layers .* such as mmm"),
    (rows_lost, "runs", "1 sealed runs .* counted, such as r1"),
]


@pytest.mark.parametrize(("damage", "table", "problem"), DEFECTS)
def test_a_defect_of_rows_is_one_finding(home: Home, damage: Damage, table: str, problem: str) -> None:
    damage(home)
    (found,) = home.findings
    assert (found.check, found.subject, found.repair) == ("rows", table, None)
    assert re.search(problem, found.problem)


def test_every_rule_finds_something(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that can never match, such as one with a wrong column in a join, would look like health."""
    for damage, *_ in DEFECTS:
        damage(home)
    again("runs")(home)
    again("results")(home)
    again("classifications")(home)
    again("embeddings")(home)
    scan, scanned = batch.doctor.tables.scan, list[str]()
    monkeypatch.setattr(
        "batch.doctor.tables.scan", lambda sql, name, *more: scanned.append(name) or scan(sql, name, *more)
    )
    found = [finding.problem.split(", such as")[0] for finding in check_rows(home.tables)]
    assert len(found) == len(RULES), found
    assert len(scanned) == len(set(scanned)), "no table has changed"


def test_a_table_that_changes_between_two_rules_is_read_again(home: Home) -> None:
    again("results")(home)
    findings = check_rows(home.tables)
    assert next(findings).subject == "results"
    result(run_id="r9", finished_at=EARLIER)(home)
    assert [finding.problem[-2:] for finding in findings] == ["r9"]


@pytest.mark.parametrize("table", ["results", "classifications", "embeddings"])
def test_a_row_that_exists_twice_is_found(home: Home, table: str) -> None:
    again(table)(home)
    assert {finding.subject for finding in home.findings} == {table}


@pytest.mark.parametrize(
    "harmless",
    [
        result(run_id="upload", finished_at=EARLIER),  # of bytes that were changed since
        result(finished_at=EARLIER),  # of the same, and the run was started again
        result(run_id="upload", finished_at=SOON),  # of a file that was changed while it was processed
        result(run_id="upload", finished_at=LATER, status="failed", error_code="changed"),
        statement(media_sha256=OTHER, asserted_at=EARLIER),
    ],
)
def test_rows_about_earlier_bytes_of_a_file_are_no_defect(home: Home, harmless: Damage) -> None:
    harmless(home)
    assert home.findings == []


def test_a_batch_about_earlier_bytes_can_be_undone(home: Home) -> None:
    statement(media_sha256=OTHER, asserted_at=EARLIER)(home)
    statement(media_sha256=OTHER, asserted_at=LATER, assertion_id="7" * 64, withdraws="9" * 64)(home)
    assert home.findings == []


def test_the_runs_of_pruned_results_are_no_defect(home: Home) -> None:
    """A later run of the same model has processed the images again."""
    home.tables.snapshot("results").delete(f"inference_key = '{home.key}'")
    put_results(home.tables, result_rows([home.sha], home.key, run_id="upload", finished_at=LATER))
    assert not [finding for finding in check_rows(home.tables) if finding.subject == "runs"]


def test_a_run_that_lost_all_its_rows_is_found(home: Home) -> None:
    home.tables.snapshot("results").delete("run_id = 'r1'")
    put_results(home.tables, result_rows([home.sha], home.key, run_id="upload", finished_at=EARLIER))
    (found,) = (finding for finding in check_rows(home.tables) if finding.subject == "runs")
    assert "such as r1" in found.problem


@pytest.mark.parametrize("table", ["media", "results", "runs"])
def test_a_lost_or_cut_file_of_a_table_is_one_finding(home: Home, table: str) -> None:
    """The rows are not checked then, since each rule would fail for the same reason."""
    file = max(home.files(f"tables/{table}/**/*.parquet"), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    damages = (file.unlink, lambda: file.write_bytes(whole[:-1]), lambda: file.write_bytes(b"x" * len(whole)))
    for damage, digests in zip(damages, (False, False, True), strict=True):
        damage()
        found = next(iter(check_files(home.tables, digests)))
        assert (found.subject, found.repair) == (table, None)
        assert f"such as {file.relative_to(home.tables.url + '/' + table)}" in found.problem


def test_a_table_without_its_log_is_a_finding(home: Home) -> None:
    log = next(iter(home.files("tables/results/_delta_log/*0.json")))
    log.write_bytes(b"{")
    (found,) = check_files(home.tables)
    assert found.subject == "results"
    assert "resight doctor" not in found.problem
    assert found.problem.startswith(f"cannot open {home.tables.url}/results: ")


def test_a_commit_that_lost_its_content_is_a_finding(home: Home) -> None:
    """Delta reads an empty file, as a power cut leaves it, as a commit without rows."""
    commit = max(home.files("tables/assertions/_delta_log/*.json"))
    commit.write_bytes(b"")
    (found,) = check_files(home.tables)
    assert (found.subject, found.repair) == ("assertions", None)
    assert f"such as _delta_log/{commit.name}" in found.problem
    commit.write_bytes(b"\n")
    assert not list(check_files(home.tables))
