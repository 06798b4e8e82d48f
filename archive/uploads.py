"""Pictures that come over HTTP, kept as an archive of their own: one file a picture, named by its content.

(folder, camera, bytes) --keep--> the file, and its row of `media` as an ingest of that folder would write it
What is kept is never replaced, and the same picture again is the same file: an upload can be repeated.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from archive.listing import file_at
from archive.media import DEFAULT_TEMPLATE, compile_template, media_row
from model_store.errors import BadRequest, StorageUnsafe
from model_store.image_header import read_header
from model_store.storage import Folder

CAMERA = r"[^\x00-\x1f\x7f/\\?.\s]([^\x00-\x1f\x7f/\\?]{0,98}[^\x00-\x1f\x7f/\\?\s])?"
"""One part of a path: no slashes, no control characters, no dot in front (such files are not listed), no question mark
(what follows it is no part of an S3 key to s3fs)."""
CAMERA_BYTES = 200
"""File systems take 255."""
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
    """Write the file unless it is there. `camera` is its folder, and so its camera unless the picture itself names
    one; "" for none.

    Raises BadRequest for what can be no folder's name, ImageError for no image, StorageUnreachable, StorageUnsafe.
    """
    require_camera(camera)
    path = path_of(camera, data)
    try:
        root.create(path, data)
        is_new = True
    except FileExistsError:
        is_new = False
    file = file_at(root, path)
    if file.size_bytes != len(data):
        raise StorageUnsafe(
            f"{root.url}/{path} is there with {file.size_bytes} bytes, of which its name is no digest: remove it"
        )
    return Kept(media_row(root.url, file, data, _TEMPLATE), is_new)


def require_camera(camera: str) -> None:
    """Raises BadRequest for what can be no folder's name; "" is no camera."""
    if camera and (len(camera.encode()) > CAMERA_BYTES or not re.fullmatch(CAMERA, camera)):
        raise BadRequest(
            f"'{camera[:100]}' can be no camera: it names a folder, so no slashes, question marks and "
            f"control characters, no dot in front, no spaces around it, and {CAMERA_BYTES} bytes at most"
        )


def path_of(camera: str, data: bytes) -> str:
    """Of a picture, below the folder. Raises ImageError."""
    extension = EXTENSIONS[read_header(data).media_type]
    name = hashlib.sha256(data).hexdigest() + extension
    return f"{camera}/{name}" if camera else name
