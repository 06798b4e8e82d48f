"""Check files outside the tables: uploads, leftovers of killed processes, free space, policy and secrets."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from archive.catalogue.diff import Difference
from archive.catalogue.ingest import ingest
from archive.catalogue.listing import list_files
from archive.delta.scratch_db import scratch, windows
from archive.delta.tables import Tables
from batch.doctor.finding import Finding
from batch.schedule.policy import Stop, policy_of
from model_store.errors import BadRequest, StorageError, StorageFull
from model_store.free_space import require_free_space
from model_store.leftovers import leftovers, remove_leftovers
from model_store.storage import Folder, is_local
from model_store.storage_errors import is_denied
from serve.auth.tokens import KEY_FILE, TokenFile
from serve.settings import Settings

WAITING = timedelta(hours=1)
"""Age from which the row of an upload is missing, and does not wait for its commit."""
_LOST = "from known anti join listed using (path) where not missing"
_UNRECORDED = "create table unrecorded as select path from listed anti join known using (path) order by path"


def check_uploads(tables: Tables, url: str) -> Iterator[Finding]:
    """Compare the folder of uploads with its rows. The repair ingests the folder, unless files are missing."""
    folder = Folder(url)
    with scratch("doctor") as sql:
        diff = Difference(sql, folder.url)
        for part in list_files(folder) if folder.exists() else ():
            diff.list(part.files)
        if (media := tables.existing("media")) is not None:  # after the files, so that a row is there
            diff.load_known(media)
        lost, example = sql.execute(f"select count(*), min(path) {_LOST}").fetchall()[0]
        if lost:
            problem = f"{lost} files are missing, such as {example}"
            action = "mount the disk, or restore these files, which have no other copy"
            yield Finding("uploads", folder.url, problem, action)
        sql.execute(_UNRECORDED)
        paths = (path for window in windows(sql, "unrecorded", 1_000) for path in window["path"].to_pylist())
        old = next((path for path in paths if _is_older(folder, path, WAITING)), None)
        if old is not None:
            count = sql.execute("select count(*) from unrecorded").fetchall()[0][0]
            repair = None if lost else partial(ingest, tables, folder.url)
            action = f"resight ingest {folder.url}; the next run adds the results"
            yield Finding("uploads", folder.url, f"{count} files without a row, such as {old}", action, repair)


def check_leftovers(settings: Settings) -> Iterator[Finding]:
    """Find temporary files of killed processes that are more than a day old. The repair removes them."""
    for url in (settings.tables_url, settings.models_url, settings.uploads_url, settings.snips_url):
        if number := sum(1 for _ in leftovers(url)):
            problem = f"{number} temporary files of killed processes (.writing-*)"
            yield Finding("leftovers", url, problem, "resight doctor --repair", partial(remove_leftovers, url))


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Find an invalid policy, disks with less free space than it reserves or none, and secrets that others can read."""
    free_mib = Stop().free_mib
    try:
        free_mib = policy_of(settings).stop.free_mib
    except BadRequest as error:
        action = "correct its owner and mode" if is_denied(error) else "correct the file"
        yield Finding("settings", str(settings.policy_path), str(error), action)
    for url in (settings.tables_url, settings.uploads_url, settings.snips_url):
        try:
            require_free_space(url, free_mib or 1, url, "free_mib" if free_mib else "the use of the disk")
        except StorageFull as error:
            yield Finding("disks", url, str(error), "free space: docs/operate/maintain.md has the order")
    tokens = TokenFile.of(settings)
    try:
        tokens.read()
    except StorageError as error:
        yield Finding("settings", tokens.url, str(error), "restore the file from the backup")
    secrets = [Path(tokens.url), Path(tokens.url).with_name(KEY_FILE)] if is_local(tokens.url) else []
    for path in (*secrets, settings.ray_token_path):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            problem = f"other users can access it: mode {stat.S_IMODE(path.stat().st_mode):o}"
            yield Finding("settings", str(path), problem, f"chmod 600 {path}", partial(path.chmod, 0o600))


def _is_older(folder: Folder, path: str, age: timedelta) -> bool:
    try:
        return bool(datetime.now(UTC) - folder.fs.modified(folder.path(path)) > age)
    except FileNotFoundError:  # removed since the listing
        return False
