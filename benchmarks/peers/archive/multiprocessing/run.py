"""A hand-written loop: a process a core, one thread each, chunks of files, a Parquet file a chunk.

python run.py FILES.txt OUT_FOLDER
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import multiprocessing
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from detector import Detector

DETECTION = pa.struct([("label", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64()))])
SCHEMA = pa.schema([("path", pa.string()), ("error", pa.string()), ("detections", pa.list_(DETECTION))])


def start(model: str) -> None:
    """Once a process: the session is built here, never for a chunk."""
    global detector
    detector = Detector(model)


def detect(path: str) -> dict:
    try:
        found = detector(Path(path).read_bytes())
    except Exception as error:
        return {"path": path, "error": repr(error), "detections": []}
    rows = [{"label": d["label"], "score": d["score"], "box": d["box_xyxy_px"]} for d in found]
    return {"path": path, "error": None, "detections": rows}


def work(task: tuple[Path, list[str]]) -> None:
    out, paths = task
    pq.write_table(pa.Table.from_pylist([detect(path) for path in paths], SCHEMA), out)


def main(files: Path, out: Path) -> None:
    paths, size = files.read_text().splitlines(), int(os.environ.get("CHUNK", "64"))
    tasks = [(out / f"part-{i:07}.parquet", paths[i : i + size]) for i in range(0, len(paths), size)]
    # Contexts and start methods: "safely forking a multithreaded process is problematic"; forkserver is what
    # Python 3.14 takes by itself
    context = multiprocessing.get_context("forkserver")
    with context.Pool(int(os.environ["PEER_CORES"]), start, (os.environ["PEER_MODEL"],)) as pool:
        # chunks are made here, of a size that is worth a message (Pool.imap: "using a large value for chunksize can
        # make the job complete much faster"); unordered, so that no process waits for another's slow picture
        for _ in pool.imap_unordered(work, tasks):
            pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
