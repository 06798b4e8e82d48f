"""Decide which catalogued files that a listing lacks are gone, and which may be on a disk that is not mounted.

tables `known`, `listed`, `arrived`; gaps --withhold--> table `withheld` (path, file, place): rows not marked missing
A file behind an unreadable gap keeps its state. A file with bytes that arrived at another path was moved: it is gone.
So are clips if no frames are sampled.
The others keep their state if one place lacks GONE_FILES or more at once, and over GONE_FRAC of its catalogued files.
Places are, in this order: an empty folder, a top-level folder (on S3 the first part of the key), a camera, the archive.
The frames of a clip follow their clip, and count for no file.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from archive.catalogue.listing import Gap, is_utf8

GONE_FILES = 10
GONE_FRAC = 0.1
WITHHELD = "create or replace table withheld (path varchar, file varchar, place varchar)"
_ABSENT = """
    create or replace table absent as
    select path, file, camera, content from known anti join listed on known.file = listed.path where not missing
"""
_BEHIND = """
    create or replace table behind as
    with gaps as (
        select path, readable, path as first, path || chr(1) as past from found_gaps
        union all select path, readable, path || '/', path || '0' from found_gaps)
    select absent.path, file, gaps.path as gap, readable
    from absent join gaps on absent.file >= first and absent.file < past
"""
_MOVED = "delete from absent where content in (select content from arrived)"
_UNREADABLE = "insert into withheld select path, file, null from behind where not readable"
_EMPTY = """
    insert into withheld select path, file, gap || '/ (empty or not mounted)' from behind
    where readable qualify count_if(path = file) over (partition by gap) >= $files
"""
_OVER = """
    insert into withheld
    with all_known as (
        select {place} as place, count_if(path = file) as files from known where not missing group by 1),
    lacking as (select {place} as place, count_if(path = file) as lacked from absent group by 1),
    over_limit as (
        select place from lacking join all_known using (place)
        where lacked >= $files and lacked > $frac * files)
    select path, file, {words} from absent join over_limit on over_limit.place = {place}
"""
_TOP = "case when contains(path, '/') then split_part(path, '/', 1) || '/' else '.' end"
_PLACES = ((_TOP, "place"), ("camera", "'camera ' || place"), ("''", "'the archive'"))
"""SQL for the place of a file, and for its name in the report. A file without a camera counts for no camera."""
_DECIDED = "delete from absent where path in (select path from withheld)"


def withhold(sql: duckdb.DuckDBPyConnection, gaps: Sequence[Gap], believe: bool) -> dict[str, int]:
    """Fill the table `withheld`; return the places that lack too many files, with the number each lacks.

    With `believe`, only files behind unreadable gaps are withheld.
    """
    sql.execute(WITHHELD)
    sql.execute(_ABSENT)
    if not sql.execute("from absent limit 1").fetchall():
        return {}
    utf8 = [gap for gap in gaps if is_utf8(gap.path)]
    columns = {"path": [g.path for g in utf8], "readable": [g.error is None for g in utf8]}
    schema = pa.schema([("path", pa.string()), ("readable", pa.bool_())])
    sql.register("found_gaps", pa.table(columns, schema=schema))
    for statement in (_BEHIND, _UNREADABLE, _DECIDED):
        sql.execute(statement)
    if not believe:
        sql.execute(_MOVED)
        sql.execute(_EMPTY, {"files": GONE_FILES})
        sql.execute(_DECIDED)
        for place, words in _PLACES:
            over = _OVER.format(place=place, words=words)
            sql.execute(over, {"files": GONE_FILES, "frac": GONE_FRAC})
            sql.execute(_DECIDED)
    sql.unregister("found_gaps")
    counts = "select place, count_if(path = file) from withheld where place is not null group by 1 order by 1"
    return dict(sql.execute(counts).fetchall())
