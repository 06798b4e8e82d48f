"""Publish views: atomic pointers to the results that queries use by default.

<tables>/views/<name>/00000007.json, each written once: the highest number is the current publication, the others are
its history. If two processes publish at once, one is rejected. A publication never changes `results`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from archive.defaults import PRODUCTION, READERS
from model_store.errors import BadRequest, Conflict, StorageUnreachable
from model_store.frozen import Frozen, wrong_fields
from model_store.storage import Folder, require_create

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_POINTER = re.compile(r"[0-9]{8,}\.json")
IDENTITY_THRESHOLD = 0.9
"""Minimum similarity of suggested individuals; the best one depends on the embedder (docs/reference/individuals.md)."""


class View(Frozen):
    """An inference key, its layers in order, the score thresholds of labels, and the minimum cosine of suggestions.

    `serial` counts the publications under this name from 1; `rolled_back_to` is the serial of an earlier publication
    that this one repeats, `after_prune` is set if the one before it lost its results to a concurrent prune. `Views`
    sets these, and `published_at`.
    """

    name: str = Field(default=PRODUCTION, pattern=f"^{NAME.pattern}$")
    serial: int = 0
    inference_key: str
    model_name: str
    model_version: str
    weights_sha256: str
    layers: tuple[str, ...] = ()
    threshold: float = 0.0
    label_thresholds: dict[str, float] = {}
    identity_threshold: float = IDENTITY_THRESHOLD
    run_id: str | None = None
    published_at: datetime | None = None
    reason: str = ""
    rolled_back_to: int | None = None
    after_prune: bool = False

    def shows_the_same_as(self, other: View) -> bool:
        """Return whether queries of both views give the same; run, time and reason do not count."""
        return all(
            getattr(self, field) == getattr(other, field)
            for field in ("inference_key", "layers", "threshold", "label_thresholds", "identity_threshold")
        )


class Views:
    """The views of one set of tables."""

    def __init__(self, tables_url: str) -> None:
        self._folder = Folder(f"{tables_url}/views")
        self._tables_url = tables_url

    def names(self) -> list[str]:
        return [name for name in self._folder.names() if NAME.fullmatch(name)]

    def current(self, name: str = PRODUCTION, upto: int | None = None) -> View | None:
        """Return the current publication, or the newest up to serial `upto`; None if there is none.

        Raises BadRequest, StorageUnreachable.
        """
        serials = [serial for serial in self._serials(name) if upto is None or serial <= upto]
        return self._read(name, serials[-1]) if serials else None

    def history(self, name: str = PRODUCTION) -> list[View]:
        """Return all publications under the name, oldest first."""
        serials = self._serials(name)
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(lambda serial: self._read(name, serial), serials))

    def publish(self, view: View, after: int, rolled_back_to: int | None = None, after_prune: bool = False) -> View:
        """Publish `view` as the successor of serial `after` (0: as the first).

        `rolled_back_to` is the serial that a rollback repeats. Raises Conflict if another publication came first,
        StorageUnsafe, StorageUnreachable.
        """
        require_create(self._tables_url)
        update = {"serial": after + 1, "published_at": datetime.now(UTC), "rolled_back_to": rolled_back_to}
        written = view.model_copy(update=update | {"after_prune": after_prune})
        unset = set() if after_prune else {"after_prune"}  # so that an earlier version can read the others
        file, data = _file(view.name, after + 1), written.model_dump_json(exclude=unset).encode()
        try:
            self._folder.create(file, data)
        except FileExistsError as error:
            if self._folder.read(file) != data:  # else our own write lost its acknowledgement
                raise Conflict(
                    f"view {view.name} was published concurrently (number {after + 1}): check it, then try again"
                ) from error
        return written

    def rollback(self, past: Sequence[View], reason: str = "") -> View:
        """Publish again the view before the newest of `past`, the history of one name; repeated calls go further back.

        Raises BadRequest without an earlier view, Conflict if `past` is not the whole history any more.
        """
        target = rollback_target(past)
        newest = past[-1].serial
        update = {"reason": reason or f"back from {newest}"}
        return self.publish(target.model_copy(update=update), newest, rolled_back_to=target.serial)

    def _serials(self, name: str) -> list[int]:
        if not NAME.fullmatch(name):
            raise BadRequest(f"invalid name of a view '{name}': use lower-case letters, digits, - and _, at most 64")
        pointers = (file for file in self._folder.names(name) if _POINTER.fullmatch(file))
        return sorted(int(file.removesuffix(".json")) for file in pointers)

    def _read(self, name: str, serial: int) -> View:
        try:
            return View.model_validate_json(self._folder.read(_file(name, serial)))
        except (FileNotFoundError, ValidationError) as error:
            why = wrong_fields(error, View) if isinstance(error, ValidationError) else "it is missing"
            raise StorageUnreachable(
                f"cannot read {self._folder.url}/{_file(name, serial)}: {why}; restore it from the backup, and then "
                "run 'resight doctor'"
            ) from error


def not_rolled_back(history: Sequence[View]) -> list[View]:
    """Return the publications that were not rolled back, oldest first; the last is the current one."""
    remaining: list[View] = []
    for view in history:
        remaining, _ = _after(remaining, view)
    return remaining


def rollback_target(history: Sequence[View]) -> View:
    """Return the target of a rollback of the non-empty `history`. Raises BadRequest if there is none."""
    remaining = not_rolled_back(history)
    if len(remaining) < 2:
        current = history[-1]
        raise BadRequest(f"nothing was published as {current.name} before {current.model_name}@{current.model_version}")
    return remaining[-2]


def was_rolled_back(
    history: Sequence[View], inference_key: str, threshold: float, label_thresholds: Mapping[str, float]
) -> bool:
    """Return whether this key with these thresholds was rolled back, and not published again since.

    A rollback to another inference key rejects the key with all its thresholds. A rollback to the same key rejects only
    the thresholds. Later changes of other keys or of layers do not revoke that. A publication that lost its results to
    a prune was not rejected.
    """

    def same_thresholds(view: View) -> bool:
        return (view.threshold, view.label_thresholds) == (threshold, label_thresholds)

    remaining: list[View] = []
    key_rejected = thresholds_rejected = False
    for view in history:
        remaining, undone = _after(remaining, view)
        if view.after_prune:
            undone = []
        of_key = [publication for publication in undone if publication.inference_key == inference_key]
        if view.inference_key != inference_key:
            key_rejected |= bool(of_key)
        else:
            key_rejected = False
            thresholds_rejected |= any(map(same_thresholds, of_key))
            thresholds_rejected &= not same_thresholds(view)
    return key_rejected or thresholds_rejected


def _after(past: list[View], view: View) -> tuple[list[View], list[View]]:
    """Split `past`, the publications not rolled back before `view`: those that remain, and those that it undoes."""
    to = view.rolled_back_to
    if to is None:
        return [*past, view], []
    return [other for other in past if other.serial <= to], [other for other in past if other.serial > to]


def _file(name: str, serial: int) -> str:
    return f"{name}/{serial:08d}.json"
