"""A negative control: one process, and the session is built again for every picture, as a script called per file does.

python run.py FILES.txt OUT_FOLDER
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from detector import Detector

DETECTION = pa.struct([("label", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64()))])
SCHEMA = pa.schema([("path", pa.string()), ("error", pa.string()), ("detections", pa.list_(DETECTION))])


def detect(path: str) -> dict:
    try:
        found = Detector(os.environ["PEER_MODEL"])(Path(path).read_bytes())
    except Exception as error:
        return {"path": path, "error": repr(error), "detections": []}
    rows = [{"label": d["label"], "score": d["score"], "box": d["box_xyxy_px"]} for d in found]
    return {"path": path, "error": None, "detections": rows}


def main(files: Path, out: Path) -> None:
    rows = [detect(path) for path in files.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), out / "all.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
