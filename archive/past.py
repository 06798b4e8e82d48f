"""The tables as they were at a moment, to read only: the scope of a run that is resumed is evaluated on them.

Tables --moment_of--> versions of the tables and the publication at that moment, which JSON can keep --PastTables-->
the same snapshots, as long as Delta keeps their files (7 days beyond their compaction or replacement)
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from archive.tables import Tables
from archive.views import Views
from model_store.errors import StorageUnreachable

PINNED = ("media", "results", "assertions", "classifications")
"""Tables that scopes are evaluated on; layers are never changed."""
VIEW = "view"
Moment = Mapping[str, int | None]
"""Version of each table of PINNED, None where there was none, and under VIEW the serial published as production."""


def moment_of(tables: Tables) -> dict[str, int | None]:
    """Return the newest versions. Raises StorageUnreachable."""
    opened = {name: tables.existing(name) for name in PINNED}
    view = Views(tables.url).current()
    versions = {name: table.version() if table else None for name, table in opened.items()}
    return versions | {VIEW: view.serial if view else 0}


class PastTables(Tables):
    """Opens the tables of PINNED at the versions of a moment, all others at their newest."""

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
            raise StorageUnreachable(
                f"cannot open table {self._path(name)} at version {version}: {error}"
            ) from error
