"""Simulate archives of any size: rows of `media` and `results`, and the file system of their images.

synthetic_media(tables, 10**6); Simulated.register(); ingest(tables, url_of(10**6)) finds every file unchanged.
Image i is CAMERA/MONTH/IMG_i.jpg, 1,000 per folder, 10 folders per camera; its digest is sha256(i).
"""

# pyright: reportMissingTypeStubs=false
# ruff: noqa: N803
# (the parameters are those of S3)

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from fsspec import AbstractFileSystem
from PIL import Image

from archive.delta.tables import Tables
from archive.schemas import MEDIA, RESULTS

FOLDER_IMAGES = 1000
CAMERA_FOLDERS = 10
FILE_ROWS = 1_000_000
_MEDIA = """
    select sha256(i::varchar) as media_sha256, $root as source_root,
        format('camera-{:05d}/2025-{:02d}/IMG_{:08d}.jpg', i // 10000, i // 1000 % 10 + 1, i) as path,
        800000 + i % 400000 as size_bytes, format('etag:{:032x}', i) as content_tag,
        'image/jpeg' as media_type, 1920 as width_px, 1080 as height_px, 1 as exif_orientation,
        strftime(timestamp '2025-01-01' + to_minutes(i % 525600), '%Y-%m-%dT%H:%M:%S')
            as captured_at_local,
        'exif' as timestamp_source, format('camera-{:05d}', i // 10000) as camera_id,
        'path' as camera_source, now() as ingested_at
    from range($first, $last) as numbers(i)
"""
_RESULTS = """
    select $key as inference_key, sha256(i::varchar) as media_sha256,
        'ok' as status, 1920 as width_px, 1080 as height_px,
        if(i % 3 = 0, $boxes, 0) as n_detections, if(i % 3 = 0, hash(i) % 1000 / 1000, null) as max_score,
        false as saturated,
        if(i % 3 = 0, [{'rank': rank, 'label': 'deer', 'class_id': 1, 'score': hash(i) % 1000 / 1000,
            'x1_px': hash(i) % 900, 'y1_px': hash(i + 1) % 500, 'x2_px': 900 + hash(i + 2) % 900,
            'y2_px': 500 + hash(i + 3) % 500, 'mask_rle': null, 'mask_area_px': null} for rank in range($boxes)],
            []) as detections,
        3.0 as read_ms, 20.0 as decode_ms, 5.0 as queue_ms, 25.0 as inference_ms,
        1.0 as postprocess_ms, 'run-1' as run_id, 'model' as model_name, '1' as model_version,
        repeat('w', 64) as weights_sha256, now() as finished_at
    from range($first, $last) as numbers(i) where hash(i) % 1000000 < $millionths
"""


def url_of(images: int) -> str:
    return f"s3://{images}"


def synthetic_media(tables: Tables, images: int, file_rows: int = FILE_ROWS) -> None:
    """Append rows of `url_of(images)`, with the columns that runs and queries need, and without a check for others."""
    _fill(tables, "media", MEDIA, _MEDIA, images, file_rows, root=url_of(images))


def synthetic_results(
    tables: Tables, images: int, key: str, frac: float = 1.0, file_rows: int = FILE_ROWS, boxes: int = 1
) -> None:
    """Append results of a share of the images under one inference key; a third have `detections` each."""
    more = {"key": key, "millionths": round(frac * 1e6), "boxes": boxes}
    _fill(tables, "results", RESULTS, _RESULTS, images, file_rows, **more)


def _fill(tables: Tables, name: str, schema: pa.Schema, sql: str, images: int, file_rows: int, **more: Any) -> None:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for first in range(0, images, file_rows):
            bounds = {"first": first, "last": min(first + file_rows, images)}
            rows = connection.sql(sql, params=bounds | more).to_arrow_table()
            write_deltalake(tables.snapshot(name), as_schema(rows, schema), mode="append")


def as_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the missing columns of the schema as nulls."""
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def path_of(image: int) -> str:
    camera, month = divmod(image // FOLDER_IMAGES, CAMERA_FOLDERS)
    return f"camera-{camera:05d}/2025-{month + 1:02d}/IMG_{image:08d}.jpg"


class Keys(Sequence[str]):
    """Ordered paths of `images` images, generated on request; each `new_each`-th image has a new one next to it."""

    def __init__(self, images: int, new_each: int = 0) -> None:
        self._images, self._new_each = images, new_each

    def __len__(self) -> int:
        return self._images + (-(-self._images // self._new_each) if self._new_each else 0)

    def __getitem__(self, place: Any) -> Any:
        image, is_new = self.image(place)
        return path_of(image).replace(".jpg", "-new.jpg") if is_new else path_of(image)

    def image(self, place: int) -> tuple[int, bool]:
        """Return the image of a place in the order, and whether it is the new one."""
        if not self._new_each:
            return place, False
        block, left = divmod(place, self._new_each + 1)
        return block * self._new_each + max(0, left - 1), left == 0


class SimulatedS3:
    """ListObjectsV2 over `Keys` with 1,000 keys per page; `calls` counts the calls.

    The first `changed` images have another tag than in `synthetic_media`.
    """

    def __init__(
        self, images: int, wait: Callable[[], None] = lambda: None, new_each: int = 0, changed: int = 0
    ) -> None:
        self._keys, self._wait, self._changed = Keys(images, new_each), wait, changed
        self.calls = 0

    def __call__(
        self, *, Prefix: str = "", Delimiter: str = "", StartAfter: str = "", ContinuationToken: str = ""
    ) -> dict[str, Any]:
        self.calls += 1
        self._wait()
        after = ContinuationToken or StartAfter
        first = bisect_right(self._keys, max(after, Prefix))
        if Delimiter:
            return self._folders(Prefix, first, after)
        end = bisect_right(self._keys, Prefix + "\U0010ffff")
        entries = [self._entry(place) for place in range(first, min(first + 1000, end))]
        more = first + 1000 < end
        return {"Contents": entries, "IsTruncated": more, "NextContinuationToken": entries[-1]["Key"] if more else ""}

    def _entry(self, place: int) -> dict[str, Any]:
        image, is_new = self._keys.image(place)
        kind = "-new" if is_new else "-changed" if image < self._changed else ""
        return {"Key": self._keys[place], "Size": 800_000 + image % 400_000, "ETag": f'"{image:032x}{kind}"'}

    def _folders(self, level: str, place: int, after: str) -> dict[str, Any]:
        found: list[str] = []
        while place < len(self._keys) and len(found) < 1000:
            key = self._keys[place]
            if not key.startswith(level):
                break
            name, slash, _ = key[len(level) :].partition("/")
            if slash and level + name + "/" > after:
                found.append(level + name + "/")
            place = bisect_right(self._keys, f"{level}{name}{slash}\U0010ffff" if slash else key)
        more = place < len(self._keys) and len(found) == 1000
        return {
            "CommonPrefixes": [{"Prefix": name} for name in found],
            "IsTruncated": more,
            "NextContinuationToken": found[-1] + "\U0010ffff" if more else "",
        }


class Simulated(AbstractFileSystem):
    """File system of `url_of(images)` with the calls of S3 that a listing needs; the options are of `SimulatedS3`.

    Call `Simulated.register()` in a process that needs no other S3.
    """

    protocol = "s3"
    req_kw: ClassVar[dict[str, Any]] = {}
    new_each: ClassVar[int] = 0
    changed: ClassVar[int] = 0
    jpeg: ClassVar[bytes] = b""

    @classmethod
    def register(cls) -> None:
        fsspec.register_implementation("s3", cls, clobber=True)

    def exists(self, path: str, **_: Any) -> bool:
        return True

    def call_s3(self, _: str, *, Bucket: str, **words: str) -> dict[str, Any]:
        return SimulatedS3(int(Bucket), new_each=self.new_each, changed=self.changed)(**words)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        """Return a small JPEG, different for each image."""
        kind = type(self)
        if not kind.jpeg:
            file = io.BytesIO()
            Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(file, "JPEG")
            kind.jpeg = file.getvalue()
        return kind.jpeg + path.encode()
