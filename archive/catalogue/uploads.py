"""Store uploaded images as a separate archive, one file per image, named by its content.

(folder, camera, bytes) --keep--> the file, and its row of `media` as an ingest of that folder would write it.
Files are never replaced, and equal images are one file, so an upload can be repeated. The names of camera folders and
of image files cannot collide.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive.catalogue.exif import FORMULA_SIGNS
from archive.catalogue.listing import file_at
from archive.catalogue.media import compile_template, media_row
from archive.defaults import DEFAULT_TEMPLATE
from model_store.errors import BadRequest, StorageFull, StorageUnreachable, StorageUnsafe
from model_store.images.header import read_header
from model_store.storage import Folder, is_local

CAMERA = r"[^\x00-\x1f\x7f/\\?.\s]([^\x00-\x1f\x7f/\\?]{0,98}[^\x00-\x1f\x7f/\\?\s])?"
"""Name of one folder without slashes, control characters, a leading dot (hidden files are not listed), or a question
mark (s3fs cuts the key there)."""
CAMERA_BYTES = 200
"""Maximum length of a camera name; file systems allow 255 bytes."""
FREE_FILES = 10_000
"""Files that uploads leave free on a disk with a fixed number of them; small images exhaust these before the space."""
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
    """A stored image; `is_new` if its file did not exist before."""

    row: dict[str, Any]  # of `media`
    is_new: bool


def keep(root: Folder, camera: str, data: bytes) -> Kept:
    """Write the file unless it exists. `camera` ("": none) is its folder, and its camera unless EXIF gives another.

    Raises BadRequest (camera), ImageError, StorageUnreachable, and StorageUnsafe if other data has its path.
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
            f"{root.url}/{path} ({file.size_bytes} bytes) does not match the digest in its name: remove it"
        )
    return Kept(media_row(root.url, file, data, _TEMPLATE), is_new)


def require_free(root: Folder, free_mib: int) -> None:
    """Raise StorageFull if a local disk has less than `free_mib` free; tables, models and Ray may share the disk.

    Object stores and a `free_mib` of 0 have no limit. Raises StorageUnreachable.
    """
    if not is_local(root.url) or not free_mib:
        return
    folder = Path(root.root)
    try:
        place = next(p for p in (folder, *folder.parents) if p.exists())
        disk = os.statvfs(place)
    except OSError as error:
        raise StorageUnreachable(f"cannot stat {root.url}: {error}") from error
    free, files = disk.f_bavail * disk.f_frsize >> 20, disk.f_favail
    if free < free_mib or (disk.f_files and files < FREE_FILES):
        raise StorageFull(
            f"the disk of uploads has {free} MiB and {files} files free, but {free_mib} MiB and {FREE_FILES} "
            "files are reserved for tables and logs: free some space, or lower limits.free_mib"
        )


def require_camera(camera: str) -> None:
    """Raise BadRequest for an invalid name of a camera folder; "" (none) is valid."""
    if camera and (
        not camera.isprintable()
        or not re.fullmatch(CAMERA, camera)
        or len(camera.encode()) > CAMERA_BYTES
        or camera[0] in FORMULA_SIGNS
        or _PICTURE.fullmatch(camera)
    ):
        raise BadRequest(
            f"invalid camera {camera[:100]!r}: use printable characters without slashes and question marks, at most "
            f"{CAMERA_BYTES} bytes, without . = + - @ at the start or spaces around it, and not the name of an "
            "image (a sha256 and an extension)"
        )


def path_of(camera: str, data: bytes) -> str:
    """Return the path of an image below the folder. Raises ImageError."""
    extension = EXTENSIONS[read_header(data).media_type]
    name = hashlib.sha256(data).hexdigest() + extension
    return f"{camera}/{name}" if camera else name
