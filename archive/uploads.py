"""Pictures sent over HTTP, kept as an archive of their own: one file a picture, named by its content.

(folder, camera, bytes) --keep--> the file, and its row of `media` as an ingest of that folder would write it
A file is never replaced, and the same picture again is the same file: an upload can be repeated. Folders of
cameras and pictures have different names, so neither can stand in the other's place.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive.defaults import DEFAULT_TEMPLATE
from archive.exif import FORMULA_SIGNS
from archive.listing import file_at
from archive.media import compile_template, media_row
from model_store.errors import BadRequest, StorageFull, StorageUnreachable, StorageUnsafe
from model_store.image_header import read_header
from model_store.storage import Folder, is_local

CAMERA = r"[^\x00-\x1f\x7f/\\?.\s]([^\x00-\x1f\x7f/\\?]{0,98}[^\x00-\x1f\x7f/\\?\s])?"
"""One part of a path: no slashes, no control characters, no dot in front (such files are not listed), no question mark
(what follows it is no part of an S3 key to s3fs)."""
CAMERA_BYTES = 200
"""File systems take 255."""
FREE_FILES = 10_000
"""That uploads leave free on a disk with a fixed number of them: small pictures use them up before its space."""
_PICTURE = re.compile(r"[0-9a-f]{64}\..*", re.IGNORECASE)
EXTENSIONS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/tiff": ".tif",
    "image/bmp": ".bmp",
}
_TEMPLATE = compile_template(DEFAULT_TEMPLATE)


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture in its place. `is_new`: it was not there before."""

    row: dict[str, Any]  # of `media`
    is_new: bool


def keep(root: Folder, camera: str, data: bytes) -> Kept:
    """Write the file unless the same bytes are there. `camera` is its folder, and its camera unless the picture names
    one itself; "" for none.

    Raises BadRequest (camera), ImageError, StorageUnreachable, and StorageUnsafe when something else is in its place.
    """
    require_camera(camera)
    path = path_of(camera, data)
    try:
        root.create(path, data)
        is_new = True
    except FileExistsError:
        is_new = False
    file = file_at(root, path)
    if not is_new and (file.size_bytes != len(data) or root.read(path) != data):
        raise StorageUnsafe(
            f"{root.url}/{path} is another file ({file.size_bytes} bytes) than its name says: remove it"
        )
    return Kept(media_row(root.url, file, data, _TEMPLATE), is_new)


def require_free(root: Folder, free_mib: int) -> None:
    """Raise StorageFull when a local disk has less free space; tables, models and Ray may be on the same one.

    An object store has no such bound. With 0 everything is allowed. Raises StorageUnreachable.
    """
    if not is_local(root.url) or not free_mib:
        return
    folder = Path(root.root)
    try:
        place = next(p for p in (folder, *folder.parents) if p.exists())
        disk = os.statvfs(place)
    except OSError as error:
        raise StorageUnreachable(f"cannot look at {root.url}: {error}") from error
    free, files = disk.f_bavail * disk.f_frsize >> 20, disk.f_favail
    if free < free_mib or (disk.f_files and files < FREE_FILES):
        raise StorageFull(
            f"the disk of uploads has {free} MiB and {files} files free, and {free_mib} MiB and {FREE_FILES} "
            "files are kept for tables and logs: free some space, or lower limits.free_mib"
        )


def require_camera(camera: str) -> None:
    """Raise BadRequest for a name that no folder of a camera may have; "" is no camera."""
    if camera and (
        not camera.isprintable()
        or not re.fullmatch(CAMERA, camera)
        or len(camera.encode()) > CAMERA_BYTES
        or camera[0] in FORMULA_SIGNS
        or _PICTURE.fullmatch(camera)
    ):
        raise BadRequest(
            f"invalid camera {camera[:100]!r}: it names a folder, so use printable characters without slashes and "
            f"question marks, at most {CAMERA_BYTES} bytes; no dot, =, +, - or @ at the start, no spaces "
            "around it, and not the name of a picture (a sha256 and an extension)"
        )


def path_of(camera: str, data: bytes) -> str:
    """Return the path of a picture below the folder. Raises ImageError."""
    extension = EXTENSIONS[read_header(data).media_type]
    name = hashlib.sha256(data).hexdigest() + extension
    return f"{camera}/{name}" if camera else name
