"""Choose one image for each content: the first catalogued of the present files with the same bytes; correct its time.

images_of("media") -> SQL. All queries that count contents or name their camera use it, so that their counts agree.
dated(rows, "wrong_clocks") -> SQL with the column `captured_at_corrected`
"""

from __future__ import annotations

PRESENT = "missing_since is null and frame_count is null"
"""Condition on a row of `media`: an image that is not missing. Only clips have a number of frames; they are not images,
but their frames are."""
_IMAGES = f"""(
    with present as (from {{media}} where {PRESENT}),
    copied as (select hash(media_sha256) as h from present group by h having count(*) > 1),
    copies as (
        select source_root, path from present where hash(media_sha256) in (select h from copied)
        qualify row_number() over (partition by media_sha256
            order by coalesce(catalogued_at, ingested_at), source_root, path) > 1)
    from present anti join copies using (source_root, path))
"""
"""Sorts only contents with a shared hash: 0.25 s for a million files, half the time of a window over all."""


def images_of(media: str) -> str:
    """Return a query in brackets for one row of relation `media` per content.

    A content without a present file has no row. Files that are catalogued later never replace the chosen one.
    """
    return _IMAGES.format(media=media)


def dated(rows: str, periods: str = "", more: str = "") -> str:
    """Return a query in brackets for `rows` with `captured_at_corrected`, and with the columns `more` of `p`.

    `periods` is relation `wrong_clocks` or `deployment_periods` (archive/views/views.sql). Without it, the archive has
    no deployments: nothing is joined, and the columns of `more` must be constants.
    """
    if not periods:
        return f"(select *, captured_at_local as captured_at_corrected{more} from {rows})"
    return f"""(
        select i.*, corrected(i.captured_at_local::timestamp, p.clock_offset_s) as captured_at_corrected{more}
        from {rows} i left join {periods} p on p.camera_id = i.camera_id
            and p.from_local <= i.captured_at_local::timestamp and i.captured_at_local::timestamp < p.until_local)
    """
