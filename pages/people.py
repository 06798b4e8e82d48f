"""Find what pictures must not show: boxes of the labels in section [privacy] of the policy (docs/reference/policy.md).

policy --current_privacy--> Privacy; digests --hidden_boxes--> {digest: boxes}, without images that have no result

A box counts from a low score on, because a person shown by mistake is a greater harm than a blurred deer. For the same
reason layers do not uncover a box, nor does a rejection: people also reject boxes to call a picture empty of animals.
A person uncovers a box with another label.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from archive.delta.tables import Tables
from archive.views.query import connect, storage_errors
from batch.schedule.policy import Privacy, read_policy
from model_store.images.crops import Box
from serve.settings import Settings

_BOXES = """
    with hiding as (select unnest($labels::varchar[]) as name),
    covered as (
        select b.media_sha256, b.x1_px, b.y1_px, b.x2_px, b.y2_px
        from boxes b left join resolved r on r.media_sha256 = b.media_sha256 and r.rank = b.rank
        where if(coalesce(r.human and not r.hidden, false), lower(coalesce(r.label, b.label)) in (from hiding),
            (lower(r.label) in (from hiding) or lower(b.label) in (from hiding))
                and greatest(r.score, b.score) >= $min_score::float)
        union
        select media_sha256, x1_px, y1_px, x2_px, y2_px from standing
        where lower(label) in (from hiding) and action <> 'suppress' and x1_px is not null)
    select media_sha256,
        list((x1_px, y1_px, x2_px, y2_px) order by x1_px, y1_px, x2_px, y2_px) filter (x1_px is not null)
    from seen left join covered using (media_sha256) where status <> 'failed' group by media_sha256
"""


def current_privacy(settings: Settings) -> Privacy:
    """Return the section of the policy file, read again after each change. Raises BadRequest as `read_policy`."""
    try:
        status = settings.policy_path.stat()
        state = (status.st_ino, status.st_mtime_ns, status.st_size)
    except OSError:
        state = None
    return _read(settings.policy_path, bool(settings.policy), state)


@functools.lru_cache(maxsize=4)
def _read(path: Path, required: bool, state: object) -> Privacy:
    return read_policy(path, required).privacy


def hidden_boxes(tables: Tables, privacy: Privacy, digests: Sequence[str]) -> Mapping[str, tuple[Box, ...]]:
    """Return the boxes to hide in each image that the published view has a result of. Raises StorageUnreachable."""
    labels = [label.lower() for label in privacy.hide_labels]
    values = {"labels": labels, "min_score": privacy.min_score}
    images = pa.chunked_array([pa.array(digests, pa.string())])
    with storage_errors(tables), connect(tables, images=images, statement=_BOXES) as sql:
        rows = sql.execute(_BOXES, values).fetchall()
    return {digest: tuple(boxes or ()) for digest, boxes in rows}
