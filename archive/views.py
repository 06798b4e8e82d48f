"""Published views: which results people see when they name no run. A pointer, moved in one step.

<tables>/views/<name>/00000007.json, each written once: the highest number is what is published, the
others are its history. If two publish at once, one is refused. Nothing of `results` is touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from archive.defaults import PRODUCTION
from model_store.errors import BadRequest, Conflict, StorageUnreachable
from model_store.storage import Folder, require_create

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_POINTER = re.compile(r"[0-9]{8,}\.json")
READERS = 16
"""Pointer files read at a time: on S3 each is a round trip."""


class View(BaseModel):
    """An inference key, the layers over it in their order, and the scores from which a label is shown.

    `serial` counts the publications under this name from 1; `rolled_back_to` is the serial of an earlier
    one that this one repeats. `Views` sets both, and `published_at`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default=PRODUCTION, pattern=f"^{NAME.pattern}$")
    serial: int = 0
    inference_key: str
    model_name: str
    model_version: str
    weights_sha256: str
    layers: tuple[str, ...] = ()
    threshold: float = 0.0
    label_thresholds: dict[str, float] = {}
    run_id: str | None = None
    published_at: datetime | None = None
    reason: str = ""
    rolled_back_to: int | None = None

    def shows_the_same_as(self, other: View) -> bool:
        """Return whether queries of both give the same; who published it, when and why do not count."""
        return all(
            getattr(self, field) == getattr(other, field)
            for field in ("inference_key", "layers", "threshold", "label_thresholds")
        )


class Views:
    """The views of one set of tables."""

    def __init__(self, tables_url: str) -> None:
        self._folder = Folder(f"{tables_url}/views")
        self._tables_url = tables_url

    @property
    def url(self) -> str:
        return self._folder.url

    def names(self) -> list[str]:
        return [name for name in self._folder.names() if NAME.fullmatch(name)]

    def current(self, name: str = PRODUCTION, upto: int | None = None) -> View | None:
        """Return what is published, or was when serial `upto` was the newest; None where nothing is.

        Raises BadRequest, StorageUnreachable.
        """
        serials = [one for one in self._serials(name) if upto is None or one <= upto]
        return self._read(name, serials[-1]) if serials else None

    def history(self, name: str = PRODUCTION) -> list[View]:
        """All that was ever published under the name, oldest first."""
        serials = self._serials(name)
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(lambda serial: self._read(name, serial), serials))

    def publish(self, view: View, after: int, rolled_back_to: int | None = None) -> View:
        """Make `view` what is published, as the successor of serial `after` (0: the first).

        `rolled_back_to` is the serial that it repeats, for a roll-back. Raises Conflict if another publication
        came first, StorageUnsafe, StorageUnreachable.
        """
        require_create(self._tables_url)
        written = view.model_copy(
            update={
                "serial": after + 1,
                "published_at": datetime.now(UTC),
                "rolled_back_to": rolled_back_to,
            }
        )
        file, data = _file(view.name, after + 1), written.model_dump_json().encode()
        try:
            self._folder.create(file, data)
        except FileExistsError as error:
            if self._folder.read(file) != data:  # else ours, whose acknowledgement was lost
                raise Conflict(
                    f"view {view.name} was published concurrently (number {after + 1}); "
                    "look at it, then try again"
                ) from error
        return written

    def rollback(self, past: Sequence[View], reason: str = "") -> View:
        """Publish again what was shown before the newest of `past`, the history of one name; twice goes back twice.

        Raises BadRequest if nothing was published before it, Conflict if `past` is not the whole history any more.
        """
        target = before(past)
        now = past[-1].serial
        words = {"reason": reason or f"back from {now}"}
        return self.publish(target.model_copy(update=words), now, rolled_back_to=target.serial)

    def _serials(self, name: str) -> list[int]:
        if not NAME.fullmatch(name):
            raise BadRequest(
                f"invalid name of a view '{name}': use small letters, digits, - and _, at most 64"
            )
        pointers = (file for file in self._folder.names(name) if _POINTER.fullmatch(file))
        return sorted(int(file.removesuffix(".json")) for file in pointers)

    def _read(self, name: str, serial: int) -> View:
        try:
            return View.model_validate_json(self._folder.read(_file(name, serial)))
        except (FileNotFoundError, ValidationError) as error:
            raise StorageUnreachable(
                f"{self.url}/{_file(name, serial)} cannot be read: {error}"
            ) from error


def standing(history: Sequence[View]) -> list[View]:
    """Return the publications that were not rolled back, oldest first: the last is what is shown now."""
    left: list[View] = []
    for view in history:
        left, _ = _after(left, view)
    return left


def before(history: Sequence[View]) -> View:
    """Return what a roll-back shows. `history` is not empty. Raises BadRequest if there is nothing."""
    left = standing(history)
    if len(left) < 2:
        now = history[-1]
        raise BadRequest(
            f"nothing was published as {now.name} before {now.model_name}@{now.model_version}"
        )
    return left[-2]


def was_rolled_back(
    history: Sequence[View],
    inference_key: str,
    threshold: float,
    label_thresholds: Mapping[str, float],
) -> bool:
    """Return whether people have rejected what would be shown: rolled back, and not published again since.

    A roll-back to another inference key rejects the key, whatever its thresholds; to the same key, those thresholds
    of it. Nothing that is done to other keys or to layers takes that back.
    """

    def is_wanted(view: View) -> bool:
        return (view.threshold, view.label_thresholds) == (threshold, label_thresholds)

    left: list[View] = []
    key_rejected = thresholds_rejected = False
    for view in history:
        left, undone = _after(left, view)
        mine = [one for one in undone if one.inference_key == inference_key]
        if view.inference_key != inference_key:
            key_rejected |= bool(mine)
        else:
            key_rejected = False
            thresholds_rejected |= any(map(is_wanted, mine))
            thresholds_rejected &= not is_wanted(view)
    return key_rejected or thresholds_rejected


def _after(left: list[View], view: View) -> tuple[list[View], list[View]]:
    """Split `left`, which was not rolled back before this publication: what remains, and what it undoes."""
    to = view.rolled_back_to
    if to is None:
        return [*left, view], []
    return [one for one in left if one.serial <= to], [one for one in left if one.serial > to]


def _file(name: str, serial: int) -> str:
    return f"{name}/{serial:08d}.json"
