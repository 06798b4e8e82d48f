"""The commands of docs/operate/maintain.md, as they are, back up a home and restore it after its loss.

The places and the model of the page are replaced by those of the test. `resight up` and `resight down` do nothing here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from archive.catalogue.row_updates import add_files
from archive.catalogue.uploads import keep
from archive.delta.writer import Writer
from archive.schemas import MEDIA, TABLES
from model_store.storage import Folder
from tests.batch.doctor.conftest import Home
from tests.fixtures_local import jpeg, write_files

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/operate/maintain.md").read_text()
BACK_UP, RESTORE = re.findall(r"```sh\n(.*?)```", PAGE[PAGE.index("\n## Back up and restore") :], re.DOTALL)[:2]
RESIGHT = f"""#!/bin/sh
case $1 in up|down) exit 0;; esac
exec {sys.executable} {ROOT}/resight.py "$@"
"""
CRONTAB = """#!/bin/sh
case $1 in -l) cat "$CRONTAB";; -r) rm "$CRONTAB";; *) cp "$1" "$CRONTAB";; esac
"""
RSYNC = f"""#!{sys.executable}
import pathlib, shutil, sys
words = sys.argv[1:]
excluded = [words.pop(i + 1) for i in reversed(range(len(words))) if words[i] == "--exclude"]
*sources, target = [word for word in words if not word.startswith("-")]
for source in sources:
    to = pathlib.Path(target) / ("" if source.endswith("/") else pathlib.Path(source).name)
    if "--delete" in words:
        shutil.rmtree(to, ignore_errors=True)
    def ignored(folder, names):
        at_root = pathlib.Path(folder) == pathlib.Path(source)
        return [name for name in names if name in excluded or (at_root and "/" + name in excluded)]
    shutil.copytree(source, to, ignore=ignored, dirs_exist_ok=True)
"""


class Machine:
    """A shell with the programs that the page uses."""

    def __init__(self, home: Home, place: Path) -> None:
        programs = {"resight": RESIGHT, "crontab": CRONTAB}
        programs |= {} if shutil.which("rsync") else {"rsync": RSYNC}
        for name in programs:
            write_files(place, {f"bin/{name}": programs[name].encode()})
            (place / "bin" / name).chmod(0o755)
        write_files(place, {"env": b"RESIGHT_TOKEN=secret", "crontab": b"15 * * * * resight ingest"})
        (place / "backup").mkdir()
        self.places = {"/srv/resight": str(home.place / "home"), "/backup/resight": str(place / "backup")}
        self.places |= {"/etc/resight": str(place), "ssdlite-coco": "blobs"}
        self.environment = os.environ | {"PATH": f"{place}/bin:{os.environ['PATH']}", "CRONTAB": f"{place}/crontab"}
        self.environment |= {"PYTHONPATH": str(ROOT), "RESIGHT_HOME": str(home.place / "home")}

    def run(self, lines: Sequence[str]) -> str:
        """Run lines of the page; all of them must succeed."""
        text = "\n".join(["set -e", *lines])
        for name, place in self.places.items():
            text = text.replace(name, place)
        done = subprocess.run(["bash", "-c", text], env=self.environment, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def contents(home: Home) -> dict[str, Any]:
    """Return the rows of every version of every table, and every file of the models and uploads."""
    tables: dict[str, Any] = {}
    for name in TABLES:
        newest = home.tables.existing(name)
        for version in range(newest.version() + 1) if newest else ():
            rows = DeltaTable(f"{home.tables.url}/{name}", version).to_pyarrow_dataset().to_table().to_pylist()
            tables[f"{name} {version}"] = sorted(map(repr, rows))
    kept = [path for name in ("models", "uploads") for path in home.files(f"{name}/**/*") if path.is_file()]
    return tables | {str(path): path.read_bytes() for path in [*kept, *home.files("tokens.*")]}


def test_a_lost_home_is_restored_by_the_commands_of_the_page(home: Home, tmp_path: Path) -> None:
    machine, lines = Machine(home, tmp_path), BACK_UP.splitlines()
    machine.run(lines[:2])
    uploads = Folder(home.settings.uploads_url)  # while the first copy was made
    kept = keep(uploads, "env", jpeg(shade=210))
    add_files(Writer(home.tables, "media", uploads.url), pa.Table.from_pylist([kept.row], schema=MEDIA))
    machine.run([lines[0], *lines[2:]])
    before = contents(home)
    assert "media 2" in before
    shutil.rmtree(home.place / "home")
    (home.place / "home").mkdir()
    out = machine.run(RESTORE.splitlines())
    assert "station-7" in out
    assert contents(home) == before
    assert home.findings == []
    assert (tmp_path / "backup" / "env").read_text() == "RESIGHT_TOKEN=secret"
    assert not home.files("env")
