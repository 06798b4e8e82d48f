"""Predictions of SpeciesNet: what its own reader requires, and what the importer reads back."""

from __future__ import annotations

import json
from pathlib import Path

from archive.formats.records import BoxRecord
from archive.formats.results_file import FileFacts, read_results
from archive.formats.speciesnet import write
from model_store.frozen import Frozen
from tests.archive.formats.test_megadetector import BOX, FACTS, image


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    fox = BoxRecord("fox", 0.5, 0, 0, 500, 250, 1, True, "human", "animal")
    person = BoxRecord("person", 0.9, 0, 0, 10, 10, 2, model_label="person")
    car = BoxRecord("car", 0.25, 0, 0, 10, 10, 3, model_label="car")
    rows = [
        image("a.jpg", fox, person, BOX, car),
        image("b.jpg", status="failed"),
        image("c.jpg", status="missing"),
        image("d.jpg", status="missing", blank_by="human"),
    ]
    out, facts = tmp_path / "predictions.json", FileFacts()
    write(rows, FACTS, out, Frozen())
    first, failed, empty = read_results("speciesnet", out, facts)
    assert [tuple(box.values()) for box in first["boxes"]] == [
        ("human", 0.9, 0.0, 0.0, 0.01, 0.02, None, None),
        ("animal", 0.8765, 0.1, 0.1, 0.2, 0.4, None, None),
        ("animal", 0.5, 0.0, 0.0, 0.5, 0.5, "fox", 1.0),
        ("vehicle", 0.25, 0.0, 0.0, 0.01, 0.02, "car", 0.25),
    ]
    assert (failed["failure"], empty["boxes"], facts.detector) == ("DETECTOR", [], "speciesnet md@5a")
    found = json.loads(out.read_text())
    assert found["info"]["format_version"] == "20261015"
    assert [row["filepath"] for row in found["predictions"]] == ["a.jpg", "b.jpg", "d.jpg"]
    named, _ = [d for d in found["predictions"][0]["detections"] if "processed_classification" in d]
    assert named["processed_classification"] == {
        "class": ";mammalia;carnivora;canidae;vulpes;vulpes;fox",
        "score": 1.0,
        "source": "person",
    }
    scores = [d["conf"] for d in found["predictions"][0]["detections"]]
    assert scores == sorted(scores, reverse=True)  # its reader takes the first as the best
