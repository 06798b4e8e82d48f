"""A Ray Data pipeline: paths, through a pool of actors with the model in them, into Parquet. Its own local Ray.

python run.py FILES.txt OUT_FOLDER
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import os
import sys
from pathlib import Path

import pyarrow as pa
import ray
from detector import Detector

DETECTION = pa.struct([("label", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64()))])
SCHEMA = pa.schema([("path", pa.string()), ("error", pa.string()), ("detections", pa.list_(DETECTION))])


class Model:
    """A class, so that the model is loaded once an actor (guide to batch inference)."""

    def __init__(self, folder: str) -> None:
        self.detector = Detector(folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = batch["path"].to_pylist(), batch["bytes"].to_pylist()
        rows = [self.row(path, jpeg) for path, jpeg in zip(*columns, strict=True)]
        return pa.Table.from_pylist(rows, SCHEMA)

    def row(self, path: str, jpeg: bytes) -> dict:
        try:
            found = self.detector(jpeg)
        except Exception as error:
            return {"path": path, "error": repr(error), "detections": []}
        rows = [{"label": d["label"], "score": d["score"], "box": d["box_xyxy_px"]} for d in found]
        return {"path": path, "error": None, "detections": rows}


def main(files: Path, out: Path) -> None:
    cores = int(os.environ["PEER_CORES"])
    ray.init(num_cpus=cores, include_dashboard=False)
    paths = files.read_text().splitlines()
    per_block = int(os.environ.get("BLOCK", "64"))
    batch = int(os.environ.get("BATCH", "16"))
    jpegs = ray.data.read_binary_files(
        paths,
        include_paths=True,
        # Performance tips, Tuning output blocks for read: "it's advantageous to manually tune the number of blocks";
        # it is the number of read tasks, and here of the results' files
        override_num_blocks=max(1, -(-len(paths) // per_block)),
        # Tuning read resources: "specify a lower num_cpus value for the read function"; without it the actors, which
        # hold theirs for the whole run, would leave none to any task
        ray_remote_args={"num_cpus": 0.25},
    )
    found = jpegs.map_batches(
        Model,
        fn_constructor_args=(os.environ["PEER_MODEL"],),
        batch_size=batch,
        batch_format="pyarrow",  # no copy from Arrow to NumPy
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=cores),
        num_cpus=0.5,
    )
    found.write_parquet(str(out), ray_remote_args={"num_cpus": 0.25})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
