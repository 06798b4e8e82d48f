"""Select the measured model: the shipped one, or another of any model store by its name.

add_options(parser) -> --model NAME --store DIR; Subject.of(arguments) -> weights, input size, folder to copy
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import MODEL, ROOT

SHIPPED = ROOT / "examples" / "models"


@dataclass(frozen=True)
class Subject:
    """The `production` version of a model in a local store."""

    store: Path
    name: str

    @staticmethod
    def of(arguments: argparse.Namespace) -> Subject:
        """Return the selected model. Raises SystemExit if it does not exist."""
        subject = Subject(arguments.store, arguments.model)
        if not (subject.store / subject.name / "aliases.json").is_file():
            raise SystemExit(f"{subject.store} has no model '{subject.name}' with an alias")
        return subject

    @property
    def folder(self) -> Path:
        """The folder of the version."""
        aliases = json.loads((self.store / self.name / "aliases.json").read_text())
        return self.store / self.name / str(aliases["production"])

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    @property
    def weights(self) -> Path:
        return self.folder / self.config["runtime"]["weights"]

    @property
    def side_px(self) -> int:
        """The side of the square input. Raises SystemExit for other inputs: the bare loops stretch to a square."""
        spec = self.config["preprocess"]
        if spec.get("height_px") not in (None, spec["side_px"]) or spec.get("resize") == "rect":
            raise SystemExit(f"{self.name} needs pictures that are not square; the bare loops support only squares")
        return int(spec["side_px"])

    @property
    def graph(self) -> Path:
        """The file of an ONNX model. Raises SystemExit for other formats: the bare loops run only ONNX."""
        if self.weights.suffix != ".onnx":
            raise SystemExit(f"{self.weights.name}: the bare loop runs ONNX files; see gpu.py")
        return self.weights


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=MODEL, help="name of a model; its alias production is measured")
    parser.add_argument("--store", type=Path, default=SHIPPED, help="model store with the model")
