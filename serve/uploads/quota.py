"""Quotas of tokens: the bytes that each has stored on this day (UTC), in a small file for each below the uploads.

(sender, camera, image) --Quotas.keep--> the stored file; its bytes count if it is new. QuotaSpent if they do not fit

Bytes are counted before the file is written, and taken back if it was there already or could not be written. A process
that is killed in between leaves them counted for the day, so no quota is exceeded. All replicas share the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from threading import Lock

from pydantic import Field, ValidationError

from archive.catalogue.uploads import Kept, keep, path_of
from model_store.errors import Conflict, ImageTooLarge, Overloaded, QuotaSpent, StorageUnreachable
from model_store.frozen import Frozen
from model_store.storage import Folder, is_local
from serve.auth.scopes import Identity

FOLDER = ".quota"
"""Folder below the uploads; no camera has this name, and no ingest reads it."""
MIB = 2**20


class Used(Frozen):
    """Content of the file of a token: `nbytes` stored on `day` (UTC)."""

    day: date
    nbytes: int = Field(ge=0)


class Quotas:
    """Quotas of the senders of one replica. Thread-safe; `now()` returns the time in UTC."""

    def __init__(self, root: Folder, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._root, self._now = root, now
        # threads of one replica take turns, so that only replicas compete for a file
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)

    def keep(self, sender: Identity | None, camera: str, data: bytes) -> Kept:
        """Store an image if it is stored already, or within the quota of its sender.

        Raises as `archive.catalogue.uploads.keep`, and QuotaSpent, ImageTooLarge (over the whole quota), Overloaded.
        """
        if sender is None or sender.daily_mib is None or self._root.exists(path := path_of(camera, data)):
            return keep(self._root, camera, data)
        day = self._count(sender.name, sender.daily_mib, len(data))
        kept, was_there = None, False
        try:
            was_there = self._root.exists(path)
            kept = keep(self._root, camera, data)
            return kept
        finally:
            if kept and is_local(self._root.url):
                stored = kept.is_new  # also if another request has written it since `exists`
            else:  # S3: `is_new` is also False if it wrote the file and its answer was lost
                stored = not was_there and (kept is not None or self._root.exists(path))
            if not stored:
                # not below 0, as an operator may have removed the file
                self._change(sender.name, day, lambda u: max(0, u.nbytes - len(data)) if u.day == day else u.nbytes)

    def _count(self, name: str, daily_mib: int, nbytes: int) -> date:
        """Add bytes to those of this day, and return the day. Raises QuotaSpent, ImageTooLarge, Overloaded."""
        now, size_mib = self._now(), f"{nbytes / MIB:.1f}"
        if nbytes > daily_mib * MIB:
            raise ImageTooLarge(
                f"the image has {size_mib} MiB, more than the {daily_mib} MiB that the token {name} may store in a day"
            )

        def added(used: Used) -> int:
            if used.nbytes + nbytes > daily_mib * MIB:
                again = datetime.combine(used.day + timedelta(days=1), time(), UTC)
                raise QuotaSpent(
                    f"the token {name} has stored {used.nbytes / MIB:.1f} of {daily_mib} MiB for this day, and the "
                    f"image has {size_mib} MiB: its quota starts again at {again:%Y-%m-%d %H:%M} UTC; send the image "
                    "again then",
                    (again - now).total_seconds(),
                )
            return used.nbytes + nbytes

        return self._change(name, now.date(), added)

    def _change(self, name: str, day: date, change: Callable[[Used], int]) -> date:
        """Replace the bytes of a day, and return that day: the later one if another replica has begun it already.

        Raises Overloaded if other replicas change them all the time, and StorageError.
        """
        file, days = f"{FOLDER}/{name}.json", [day]

        def changed(data: bytes | None) -> bytes:
            try:
                used = Used(day=day, nbytes=0) if data is None else Used.model_validate_json(data)
            except ValidationError as error:
                raise StorageUnreachable(f"{self._root.url}/{file} is damaged: remove it") from error
            if not 0 <= (used.day - day).days <= 1:  # a day ago, or by a clock that was far ahead
                used = Used(day=day, nbytes=0)
            days.append(used.day)
            return Used(day=used.day, nbytes=change(used)).model_dump_json().encode()

        with self._locks[name]:
            try:
                self._root.update(file, changed)
            except Conflict as error:
                raise Overloaded(f"the quota of the token {name} is being counted by other replicas") from error
        return days[-1]
