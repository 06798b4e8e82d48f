"""Why results of an inference key are kept: views and their way back, exports, people's words, runs, aliases.

tables, what aliases mean --reasons--> {inference key: words, …}; a key without words may be pruned
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import duckdb

from archive.dataset import dataset
from archive.run_kinds import DETECTS
from archive.schemas import TABLES
from archive.tables import Tables
from archive.views import View, Views, standing

RECENT = timedelta(days=1)
"""A run that gave a sign so lately may be at work, however few days are to be kept."""
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
    having max(event_at) >= $recent
"""
_ENDED = f"""
    with last as (
        from runs where inference_key is not null and {DETECTS}
        qualify row_number() over (partition by run_id order by event desc) = 1)
    select inference_key, 'run ' || arg_max(run_id, event_at) || ' was '
        || replace(arg_max(state, event_at), 'running', 'interrupted') || ' on ' || max(event_at)::date
    from last where state <> 'sealed' or inference_key not in (select unnest($published)) group by inference_key
    having max(event_at) < $recent and max(event_at) >= $since
"""
"""What a run did may still be published, or gone on with. Of what was published its views say how long. What
other runs than those that detect did is a layer, or classifications: these are of what a view shows."""


def reasons(
    tables: Tables, aliased: Mapping[str, str], keep_days: float, now: datetime
) -> dict[str, list[str]]:
    """`aliased`: inference key to the alias that means it. Raises StorageUnreachable: in doubt, nothing is
    free to go.
    """
    found: dict[str, list[str]] = defaultdict(list)
    views = Views(tables.url)
    published: set[str] = set()
    for name in views.names():
        history = views.history(name)
        published.update(view.inference_key for view in history)
        for key, words in of_view(history, keep_days, now):
            found[key].append(words)
    of_runs = _of_runs(tables, published, keep_days, now)
    for key, words in [*_of_tables(tables, now), *of_runs, *aliased.items()]:
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
    connection = _connect(tables, _READ)
    return [
        *connection.execute(_EXPORTED).fetchall(),
        *connection.execute(_ASSERTED).fetchall(),
        *connection.execute(_AT_WORK, {"recent": now - RECENT}).fetchall(),
    ]


def _of_runs(
    tables: Tables, published: Collection[str], keep_days: float, now: datetime
) -> list[Reason]:
    """Runs that ended, or fell silent, in the last `keep_days`."""
    moments = {"recent": now - RECENT, "since": now - timedelta(days=keep_days)}
    asked = moments | {"published": sorted(published)}
    return _connect(tables, ("runs",)).execute(_ENDED, asked).fetchall()


def _connect(tables: Tables, names: Sequence[str]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    for name in names:
        table, schema = tables.existing(name), TABLES[name]
        connection.register(name, schema.empty_table() if table is None else dataset(table, schema))
    return connection
