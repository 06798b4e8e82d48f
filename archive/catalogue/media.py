"""Build the row of `media` for a file of the archive.

(root, file, bytes) --media_row--> dict of the columns in schemas.MEDIA.
The camera is the EXIF body serial number, else that of the maker notes, else by the path template, else unknown.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from archive.catalogue.exif import Exif, clean_text, read_exif
from archive.catalogue.exiftool import MakerNotes
from archive.catalogue.listing import ArchiveFile
from archive.catalogue.quick_digest import quick_digest
from archive.defaults import DEFAULT_TEMPLATE
from model_store.errors import BadRequest, ImageError, ImageUnreadable
from model_store.images.header import SUPPORTED, media_type, read_header

CLIP_COLUMNS = ("duration_ms", "frame_rate", "frame_count", "clip_sha256", "frame_index", "at_ms")
"""Columns that only clips and their frames have (archive/catalogue/clips.py)."""
MAX_SIDE_PX = 2**31 - 1  # maximum of the int32 columns


class Template(NamedTuple):
    """Pattern of a path, with a group `camera`; `camera`, if any, is that of all files."""

    pattern: re.Pattern[str]
    camera: str = ""


def media_row(root_url: str, file: ArchiveFile, data: bytes, template: Template) -> dict[str, Any]:
    """Return the row of a file. Damaged bytes raise nothing: `header_error` describes them."""
    exif = read_exif(data) if media_type(data[:512]) in SUPPORTED else Exif()
    return file_row(root_url, file, data, template, exif) | _header(data)


def file_row(
    root_url: str,
    file: ArchiveFile,
    data: bytes,
    template: Template,
    exif: Exif = Exif(),  # noqa: B008
) -> dict[str, Any]:
    """Return the columns of a row that need no header."""
    serial = exif.camera_serial
    from_path = camera_of(file.path, template)
    return {
        "media_sha256": hashlib.sha256(data).hexdigest(),
        "source_root": root_url,
        "path": file.path,
        "size_bytes": len(data),
        "quick_digest": quick_digest(data),
        "content_tag": file.content_tag,
        "media_type": media_type(data[:512]),
        **asdict(MakerNotes()),
        **dict.fromkeys(CLIP_COLUMNS),
        **asdict(exif),
        "camera_id": serial or from_path,
        "camera_source": "exif_serial" if serial else "path" if from_path else None,
        "ingested_at": (now := datetime.now(UTC)),
        "catalogued_at": now,
        "missing_since": None,
    }


def with_maker_notes(row: dict[str, Any], notes: MakerNotes) -> dict[str, Any]:
    """Return the row with maker notes, and with the camera of their serial number if EXIF has none."""
    found = asdict(notes)
    serial = notes.camera_serial
    if row["camera_serial"] or serial is None:
        del found["camera_serial"]
    else:
        found |= {"camera_id": serial, "camera_source": "maker_serial"}
    return row | found


def compile_template(template: str) -> Template:
    """Return a path template, with one {camera}, not at its end, and no other brace. Raises BadRequest.

    `{camera}` and other {names} match one part of the path, `{rest}` matches anything, other text matches itself.
    `{camera=NAME}` alone is the template of one camera.
    """
    if fixed := re.fullmatch(r"(?s)\{camera=(.+)\}", template):
        return Template(re.compile("(?P<camera>)(?s:.+)"), fixed[1])
    if template.count("{camera}") != 1:
        raise BadRequest(
            f"invalid path template '{template}': it must have one {{camera}}, the part of a path that names it, for "
            f"example '{DEFAULT_TEMPLATE}' or 'site-{{site}}/{{camera}}/{{rest}}'"
        )
    if template.endswith("{camera}"):
        raise BadRequest(
            f"invalid path template '{template}': the last part of a path is a file, so each file would be a camera; "
            "use a folder, such as '{camera}/{rest}'"
        )
    pieces = re.split(r"(\{[a-z_]+\})", template)
    wrong = next((piece for piece in pieces[::2] if "{" in piece or "}" in piece), None)
    if wrong is not None:
        raise BadRequest(
            f"invalid path template '{template}': unknown name or single brace in '{wrong}'; a name is lower-case "
            "letters in braces, for example {site}"
        )
    patterns = {"{camera}": "(?P<camera>[^/]+)", "{rest}": "(?s:.+)"}
    parts = (
        patterns.get(piece, "[^/]+") if re.fullmatch(r"\{[a-z_]+\}", piece) else re.escape(piece) for piece in pieces
    )
    return Template(re.compile("".join(parts)))


def camera_of(path: str, template: Template) -> str | None:
    """Return the camera that a path gives, cleaned like EXIF texts: folders of a card can have any name."""
    match = template.pattern.fullmatch(path)
    return clean_text(template.camera or match["camera"]) if match else None


def _header(data: bytes) -> dict[str, Any]:
    try:
        header = read_header(data)
        if max(header.width_px, header.height_px) > MAX_SIDE_PX:
            raise ImageUnreadable(f"the header claims {header.width_px}x{header.height_px} pixels")
    except ImageError as error:
        return {"width_px": None, "height_px": None, "exif_orientation": None, "header_error": str(error)}
    return {
        "width_px": header.width_px,
        "height_px": header.height_px,
        "exif_orientation": header.orientation,
        "header_error": None,
    }
