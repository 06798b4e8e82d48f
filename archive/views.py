"""Published views: which results people see when they name no run. A pointer, moved in one step.

<tables>/views/<name>/00000007.json, each written once: the highest number is what is published, the
others are its history. Of two that publish at once, one is refused. Nothing of `results` is touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.errors import BadRequest, Conflict, StorageUnreachable
from model_store.storage import Folder, require_create

PRODUCTION = "production"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_POINTER = re.compile(r"[0-9]{8,}\.json")
READERS = 16
"""Pointer files read at a time: on S3 each is a round trip."""


class View(BaseModel):
    """An inference key, the layers over it in their order, and the scores from which a label is shown.

    `serial` counts the publications under this name from 1; `rolled_back_to` is the serial of an earlier
    one that this one repeats.
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
        """Whoever queries sees no difference; who published it, when and why do not count."""
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

    def current(self, name: str = PRODUCTION) -> View | None:
        """What is published, or None. Raises BadRequest, StorageUnreachable."""
        serials = self._serials(name)
        return self._read(name, serials[-1]) if serials else None

    def history(self, name: str = PRODUCTION) -> list[View]:
        """All that was ever published under the name, oldest first."""
        serials = self._serials(name)
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(lambda serial: self._read(name, serial), serials))

    def publish(self, view: View, after: int) -> View:
        """Make `view` what is published, as the successor of serial `after` (0: the first).

        Raises Conflict when another publication came between, StorageUnsafe, StorageUnreachable.
        """
        require_create(self._tables_url)
        written = view.model_copy(update={"serial": after + 1, "published_at": datetime.now(UTC)})
        file, data = _file(view.name, after + 1), written.model_dump_json().encode()
        try:
            self._folder.create(file, data)
        except FileExistsError as error:
            if self._folder.read(file) != data:  # else ours, whose acknowledgement was lost
                raise Conflict(
                    f"view {view.name} was published by another hand meanwhile (number {after + 1}); "
                    "look at it, then publish again"
                ) from error
        return written

    def rollback(self, name: str = PRODUCTION, reason: str = "") -> View:
        """Publish again what was shown before the current view; twice goes back twice.

        Raises BadRequest when there is nothing before it, Conflict.
        """
        past = self.history(name)
        if not past:
            raise BadRequest(f"nothing is published as {name}")
        target = before(past)
        back = {"rolled_back_to": target.serial, "reason": reason or f"back from {past[-1].serial}"}
        return self.publish(target.model_copy(update=back), after=past[-1].serial)

    def _serials(self, name: str) -> list[int]:
        if not NAME.fullmatch(name):
            raise BadRequest(
                f"'{name}' is no name of a view: small letters, digits, - and _, at most 64"
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
    """Publications that were not rolled back, oldest first: the last is what is shown now."""
    left: list[View] = []
    for view in history:
        if view.rolled_back_to is None:
            left.append(view)
        else:
            left = [kept for kept in left if kept.serial <= view.rolled_back_to]
    return left


def before(history: Sequence[View]) -> View:
    """What a roll-back shows. `history` is not empty. Raises BadRequest when there is nothing."""
    left = standing(history)
    if len(left) < 2:
        now = history[-1]
        raise BadRequest(
            f"nothing was published as {now.name} before {now.model_name}@{now.model_version}"
        )
    return left[-2]


def _file(name: str, serial: int) -> str:
    return f"{name}/{serial:08d}.json"
