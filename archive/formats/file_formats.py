"""List the file formats of other tools; the module of a format is imported when it is used.

FORMATS["megadetector"].write(records, facts, part, options)
A format is a line of FORMATS and a module with `write(images, facts, out, options)`. `images` yields each ImageRecord
once, `out` is the file or the folder to make, and the class of `options` (Frozen) is that of the parameter. `write` may
return counts, such as {"images": 9, "left_out": 1}; without them, `images` is the number of files of the view.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from model_store.errors import BadRequest
from model_store.frozen import Frozen, wrong_fields

if TYPE_CHECKING:
    from archive.formats.records import ExportLineage, ImageRecord


@dataclass(frozen=True)
class FileFormat:
    """A format that views are exported to. `suffix` is that of its file, "" for a folder; `place`: module:function.

    `has_one_root`: paths in the result are relative to one archive, so images of several would be mixed up.
    `has_links`: the result links to images of this machine, so it cannot be sent to another.
    """

    name: str
    suffix: str
    description: str
    place: str
    has_one_root: bool = True
    has_links: bool = False

    @property
    def is_folder(self) -> bool:
        return not self.suffix

    @property
    def option_class(self) -> type[Frozen]:
        found: type[Frozen] = typing.get_type_hints(self._function())["options"]
        return found

    def options(self, given: Mapping[str, Any]) -> Frozen:
        """Return the options of the format, also from texts. Raises BadRequest for an unknown or invalid one."""
        kind = self.option_class
        unknown = sorted(given.keys() - kind.model_fields.keys())
        if unknown:
            names = ", ".join(kind.model_fields) or "none"
            raise BadRequest(f"unknown option '{unknown[0]}' of {self.name}; its options: {names}")
        try:
            return kind.model_validate(dict(given))
        except ValidationError as error:
            raise BadRequest(f"invalid option of {self.name}: {wrong_fields(error)}") from error

    def write(
        self, images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen
    ) -> Mapping[str, Any]:
        """Write the images to `out`; return the counts that the format has, else none, and `reasons` as texts.

        Raises BadRequest if the format requires a fact that is missing.
        """
        return self._function()(images, facts, out, options) or {}

    def _function(self) -> Any:
        module, function = self.place.split(":")
        return getattr(importlib.import_module(f"archive.formats.{module}"), function)


_LISTED = (
    FileFormat(
        "megadetector", ".json", "MegaDetector batch results 1.6, for Timelapse and AddaxAI", "megadetector:write"
    ),
    FileFormat("megadetector-folders", "", "the same, with a file for each top folder", "megadetector:write_folders"),
    FileFormat("camtrap-dp", "", "Camera Trap Data Package 1.0.2", "camtrap_dp:write"),
    FileFormat("coco", ".json", "COCO data set with the fields of camera traps", "coco:write"),
    FileFormat("coco-results", ".json", "COCO detection results", "coco:write_results"),
    FileFormat("csv", "", "CSV of images and of detections, for spreadsheets", "csv_tables:write", has_one_root=False),
    FileFormat("timelapse", ".csv", "CSV of labels for Timelapse", "csv_tables:write_timelapse"),
    FileFormat("label-studio", "", "tasks of Label Studio with predictions", "label_studio:write"),
    FileFormat("yolo", "", "data set to train YOLO", "yolo:write", has_one_root=False, has_links=True),
    FileFormat("darwin-core", ".csv", "Darwin Core occurrences", "darwin_core:write"),
    FileFormat("speciesnet", ".json", "predictions in the format of SpeciesNet 5", "speciesnet:write"),
)
FORMATS = {each.name: each for each in _LISTED}
