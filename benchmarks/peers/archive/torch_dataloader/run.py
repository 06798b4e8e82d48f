"""A torch DataLoader whose workers read and decode, and one session of ONNX Runtime that it feeds.

python run.py FILES.txt OUT_FOLDER
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from detector import Detector
from torch.utils.data import DataLoader, Dataset

DETECTION = pa.struct([("label", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64()))])
SCHEMA = pa.schema([("path", pa.string()), ("error", pa.string()), ("detections", pa.list_(DETECTION))])
ROWS_A_FILE = 64


class Pictures(Dataset):
    def __init__(self, paths: list[str], detector: Detector) -> None:
        # torch.utils.data, Multi-process data loading: "replace Python objects with non-refcounted representations
        # such as Pandas, Numpy or PyArrow objects", or each worker copies a long list of file names
        self.paths = np.array(paths)
        self.detector = detector

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple:
        path = str(self.paths[i])
        try:
            tensor, size_px = self.detector.prepare(Path(path).read_bytes())
        except Exception as error:
            return path, repr(error), None, None
        return path, None, torch.from_numpy(tensor), size_px


def collate(items: list[tuple]) -> tuple:
    """The tensors of those that could be read are stacked in the worker, into shared memory."""
    tensors = [tensor for _, _, tensor, _ in items if tensor is not None]
    facts = [(path, error, size_px) for path, error, _, size_px in items]
    return facts, torch.stack(tensors) if tensors else None


def rows_of(detector: Detector, facts: list[tuple], tensors: torch.Tensor | None) -> list[dict]:
    outputs = iter([] if tensors is None else detector.infer(tensors.numpy()))
    rows = []
    for path, error, size_px in facts:
        found = [] if error else detector.detections(next(outputs), size_px)
        boxes = [{"label": d["label"], "score": d["score"], "box": d["box_xyxy_px"]} for d in found]
        rows.append({"path": path, "error": error, "detections": boxes})
    return rows


def main(files: Path, out: Path) -> None:
    # the session in this process: as many threads as the configuration leaves beside the workers
    detector = Detector(os.environ["PEER_MODEL"], threads=int(os.environ.get("THREADS", "2")))
    loader = DataLoader(
        Pictures(files.read_text().splitlines(), detector),
        batch_size=int(os.environ.get("BATCH", "8")),
        # Performance Tuning Guide: "num_workers should be tuned depending on the workload, CPU, GPU, and location of
        # training data"; pin_memory "when using a GPU", persistent_workers for more than one epoch
        num_workers=int(os.environ.get("WORKERS", "1")),
        prefetch_factor=int(os.environ.get("PREFETCH", "2")),
        in_order=False,  # a slow picture holds nobody up; order does not matter here
        collate_fn=collate,
    )
    rows: list[dict] = []
    written = 0
    for facts, tensors in loader:
        rows += rows_of(detector, facts, tensors)
        if len(rows) >= ROWS_A_FILE:
            written, rows = write(rows, out, written), []
    if rows:
        write(rows, out, written)


def write(rows: list[dict], out: Path, written: int) -> int:
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), out / f"part-{written:05}.parquet")
    return written + 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
