"""A Daft query: paths, downloaded, through a class with the model in it, into Parquet. Native runner.

python run.py FILES.txt OUT_FOLDER
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (runs in an environment of its own; from here `daft` looks like this folder)

import os
import sys
from pathlib import Path

import daft
from daft import DataType, Series, col
from detector import Detector

DETECTION = DataType.struct(
    {"label": DataType.string(), "score": DataType.float64(), "box": DataType.list(DataType.float64())}
)
RESULT = DataType.struct({"error": DataType.string(), "detections": DataType.list(DETECTION)})


# Stateful Class UDFs, Best Practices: "Use use_process=True to run each instance in a separate process … to improve
# performance by avoiding GIL contention"; max_concurrency "controls the number of actor pool processes"
@daft.cls(max_concurrency=int(os.environ["PEER_CORES"]), use_process=os.environ.get("PROCESSES") == "1")
class Model:
    def __init__(self, folder: str) -> None:
        self.detector = Detector(folder)

    # Batch Sizing: "Large batches can exhaust memory … Experiment to find the optimal size"
    @daft.method.batch(return_dtype=RESULT, unnest=True, batch_size=int(os.environ.get("BATCH", "16")))
    def detect(self, jpegs: Series) -> list[dict]:
        return [self.one(jpeg) for jpeg in jpegs.to_pylist()]

    def one(self, jpeg: bytes | None) -> dict:
        if jpeg is None:
            return {"error": "cannot be read", "detections": []}
        try:
            found = self.detector(jpeg)
        except Exception as error:
            return {"error": repr(error), "detections": []}
        rows = [{"label": d["label"], "score": d["score"], "box": d["box_xyxy_px"]} for d in found]
        return {"error": None, "detections": rows}


def main(files: Path, out: Path) -> None:
    # one file of 512 MB by default, which an archive's rows never fill: smaller ones are there earlier
    daft.set_execution_config(parquet_target_filesize=int(os.environ.get("FILE_BYTES", "16384")))
    model = Model(os.environ["PEER_MODEL"])
    frame = daft.from_pydict({"path": files.read_text().splitlines()})
    # max_connections: of local files a few are enough; "on_error: null" keeps the row of a file that cannot be read
    jpegs = col("path").download(on_error="null", max_connections=8)
    frame.select("path", model.detect(jpegs)).write_parquet(str(out), write_mode="append")


if __name__ == "__main__":
    daft.set_runner_native()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
