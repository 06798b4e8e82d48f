"""Store uploaded images as a separate archive, one file per image, named by its content.

(folder, camera, bytes) --keep--> the file, and its row of `media` as an ingest of that folder would write it.
Files are never replaced, and equal images are one file, so an upload can be repeated. The names of camera folders and
of image files cannot collide.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from archive.catalogue.exif import FORMULA_SIGNS
from archive.catalogue.listing import file_at
from archive.catalogue.media import compile_template, media_row
from archive.defaults import DEFAULT_TEMPLATE
from model_store.errors import BadRequest, StorageUnsafe
from model_store.images.header import read_header
from model_store.storage import Folder

CAMERA = r"[^\x00-\x1f\x7f/\\?.\s]([^\x00-\x1f\x7f/\\?]{0,98}[^\x00-\x1f\x7f/\\?\s])?"
"""Name of one folder without slashes, control characters, a leading dot (hidden files are not listed), or a question
mark (s3fs cuts the key there)."""
CAMERA_BYTES = 200
"""Maximum length of a camera name; file systems allow 255 bytes."""
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


def require_camera(camera: str) -> None:
    """Raise BadRequest for an invalid name of a camera folder; "" (none) is valid."""
    if camera and (
        not camera.isprintable()
        or "\ufffd" in camera  # a server puts it in place of bytes that are not UTF-8
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
