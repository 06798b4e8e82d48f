"""resight doctor: what people and cron run."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.cli.conftest import Resight
from tests.fixtures_local import copy_of_models, jpeg, write_files


def test_it_ends_with_1_until_all_findings_are_repaired(resight: Resight, tmp_path: Path, home: Path) -> None:
    copy_of_models(home)
    resight("ingest", write_files(tmp_path / "archive", {"north/1.jpg": jpeg()})).ok()
    healthy = resight("doctor", "--format", "json")
    assert (json.loads(healthy.ok()), healthy.err) == ([], "nothing was found\n")
    os.utime(write_files(home / "models", {".writing-x": b""}) / ".writing-x", (0, 0))
    policy = write_files(home, {"policy.toml": b"x = 1"}) / "policy.toml"
    found = resight("doctor", "--format", "json")
    assert found.code == 1
    rows = {row["check"]: row["repaired"] for row in json.loads(found.out)}
    assert rows == {"settings": False, "leftovers": False}
    assert "'resight doctor --repair' repairs 1 of them" in found.err
    rest = resight("doctor", "--repair", "--format", "json")
    assert rest.code == 1
    people = resight("doctor").out.splitlines()
    assert [line.split(": ")[0] for line in people] == ["settings", "  correct the file"]
    assert {row["check"]: row["repaired"] for row in json.loads(rest.out)} == {"settings": False, "leftovers": True}
    assert "2 findings, 1 not repaired" in rest.err
    assert "\n1 finding, 1 not repaired" in "\n" + resight("doctor").err
    policy.unlink()
    assert resight("doctor", "--digests").err == "nothing was found\n"
