"""MegaDetector's own batch script, with its results, which are JSON, turned into Parquet.

python run.py FILES.txt OUT_FOLDER
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DETECTION = pa.struct([("label", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64()))])
SCHEMA = pa.schema([("path", pa.string()), ("error", pa.string()), ("detections", pa.list_(DETECTION))])


def main(files: Path, out: Path) -> None:
    # "Dividing a list of images into one chunk per GPU happens outside of this script" (its docstring), so here too.
    # Its own --ncores forks after TensorFlow was started, and with a .pb graph the workers wait for ever.
    paths, processes = files.read_text().splitlines(), int(os.environ["PROCESSES"])
    running = [start(paths[i::processes], out, f"part-{i}") for i in range(min(processes, len(paths)))]
    for process, results in running:
        if process.wait():
            raise SystemExit(process.returncode)
        convert(results)


def start(paths: list[str], out: Path, name: str) -> tuple[subprocess.Popen, Path]:
    prepared = Path(os.environ["PEER_PREPARED"])
    listed, results = out / f"{name}.txt", out / f"{name}.json"
    listed.write_text("\n".join(paths))
    command = [sys.executable, "-m", "megadetector.detection.run_detector_batch"]
    command += [str(prepared / "model.pb"), str(listed), str(results), "--include_image_size"]
    command += ["--class_mapping_filename", str(prepared / "classes.json")]
    command += ["--threshold", os.environ["THRESHOLD"], *os.environ.get("OPTIONS", "").split()]
    return subprocess.Popen(command), results


def convert(results: Path) -> None:
    found = json.loads(results.read_text())
    rows = [row(image, found["detection_categories"]) for image in found["images"]]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), results.with_suffix(".parquet"))


def row(image: dict, labels: dict[str, str]) -> dict:
    if image.get("failure"):
        return {"path": image["file"], "error": image["failure"], "detections": []}
    sides = image["width"], image["height"]
    boxes = [detection(one, labels, sides) for one in image["detections"]]
    return {"path": image["file"], "error": None, "detections": boxes}


def detection(one: dict, labels: dict[str, str], sides: tuple[int, int]) -> dict:
    left, top, width, height = one["bbox"]
    ends = (left, top, left + width, top + height)
    box = [part * side for part, side in zip(ends, sides * 2, strict=True)]
    return {"label": labels[one["category"]], "score": one["conf"], "box": box}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
