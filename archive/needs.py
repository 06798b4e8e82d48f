"""Why results of an inference key are kept: views and their way back, exports, people's words, runs, aliases.

tables, what aliases mean --reasons--> {inference key: words, …}; a key without words may be pruned
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import duckdb

from archive.dataset import dataset
from archive.schemas import TABLES
from archive.tables import Tables
from archive.views import View, Views, standing

RECENT = timedelta(days=1)
"""A run that gave a sign so lately may be at work, or about to be resumed."""
Reason = tuple[str, str]
_READ = ("exports", "assertions", "runs")
_EXPORTED = """
    select key, arg_max(file, exported_at) || ' holds it, exported on ' || max(exported_at)::date
        || if(count(*) > 1, ' (and ' || count(*) - 1 || ' more)', '')
    from (select unnest(inference_keys) as key, file, exported_at from exports) group by key
"""
_ASSERTED = """
    select inference_key, count(*) || ' human assertions name it' from assertions
    where method = 'human' and inference_key is not null group by inference_key
"""
_AT_WORK = """
    select inference_key, 'run ' || arg_max(run_id, event_at) || ' was at work on '
        || strftime(max(event_at), '%Y-%m-%d %H:%M') || ' UTC'
    from runs where inference_key is not null group by inference_key
    having max(event_at) >= $since
"""


def reasons(
    tables: Tables, aliased: Mapping[str, str], keep_days: float, now: datetime
) -> dict[str, list[str]]:
    """`aliased`: inference key to the alias that means it. Raises StorageUnreachable: in doubt, nothing is
    free to go.
    """
    found: dict[str, list[str]] = defaultdict(list)
    views = Views(tables.url)
    for name in views.names():
        for key, words in of_view(views.history(name), keep_days, now):
            found[key].append(words)
    for key, words in [*_of_tables(tables, now), *aliased.items()]:
        found[key].append(words)
    return dict(found)


def of_view(history: Sequence[View], keep_days: float, now: datetime) -> Iterator[Reason]:
    """The current publication, that before it, and those that were shown in the last `keep_days`."""
    if not history:
        return
    current = history[-1]
    yield current.inference_key, f"view {current.name} shows it"
    back = [*standing(history)[:-1][-1:], *history[:-1][-1:]]
    for view in {view.serial: view for view in back}.values():
        yield view.inference_key, f"view {view.name} can go back to it (number {view.serial})"
    since = now - timedelta(days=keep_days)
    for view, successor in itertools.pairwise(history):
        until = successor.published_at
        if view in back or view.inference_key == current.inference_key:
            continue
        if until and until >= since:
            yield view.inference_key, f"view {view.name} showed it until {until:%Y-%m-%d}"


def _of_tables(tables: Tables, now: datetime) -> list[Reason]:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    for name in _READ:
        table, schema = tables.existing(name), TABLES[name]
        connection.register(name, schema.empty_table() if table is None else dataset(table, schema))
    return [
        *connection.execute(_EXPORTED).fetchall(),
        *connection.execute(_ASSERTED).fetchall(),
        *connection.execute(_AT_WORK, {"since": now - RECENT}).fetchall(),
    ]
