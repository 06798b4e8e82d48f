"""Open the tables at an earlier moment, read-only, to evaluate the scope of a resumed run.

Tables --moment_of--> versions of the tables and serial of the publication, as JSON values --PastTables--> the same
snapshots. Delta keeps their files for 7 days after a compaction or replacement.
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from archive.delta.tables import Tables
from archive.views.views import Views
from model_store.errors import StorageUnreachable

PINNED = ("media", "results", "assertions", "classifications", "embeddings", "deployments")
"""Tables that a scope and the status of its units are read from, except `layers`, which never changes."""
VIEW = "view"
Moment = Mapping[str, int | None]
"""Version of each table of PINNED (None if it did not exist), and under VIEW the serial of the production view.

Runs of older releases recorded fewer tables.
"""


def moment_of(tables: Tables) -> dict[str, int | None]:
    """Return the current versions. Raises StorageUnreachable."""
    opened = {name: tables.existing(name) for name in PINNED}
    view = Views(tables.url).current()
    versions = {name: table.version() if table else None for name, table in opened.items()}
    return versions | {VIEW: view.serial if view else 0}


class PastTables(Tables):
    """Tables that open those of PINNED at the versions of a moment, and all others at their newest version."""

    def __init__(self, url: str, moment: Moment) -> None:
        super().__init__(url)
        self.moment = moment
        self.published_upto = moment[VIEW]

    def existing(self, name: str) -> DeltaTable | None:
        if name not in self.moment:
            return super().existing(name)
        version = self.moment[name]
        if version is None:
            return None
        try:
            return DeltaTable(self._path(name), version, storage_options=self._options)
        except (OSError, DeltaError) as error:
            raise StorageUnreachable(f"cannot open table {self._path(name)} at version {version}: {error}") from error
