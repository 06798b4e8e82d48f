"""Create `.pt2` files: small programs of torch.export, and modified copies of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

SIDE_PX = 64
CELLS = (SIDE_PX // 8) ** 2

Change = Callable[[str, bytes], bytes | None]


class TinyDetector(torch.nn.Module):
    """Boxes of 16 px at 8 x 8 cells, scored by colour: the layout of YOLOv8 with two classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = torch.nn.Conv2d(3, 2, 8, stride=8)
        torch.nn.init.normal_(self.cell.weight, std=0.3)
        steps = torch.arange(SIDE_PX // 8) * 8.0 + 4
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        size = torch.full((CELLS,), 16.0)
        self.register_buffer("boxes", torch.stack([x.reshape(-1), y.reshape(-1), size, size]))

    def forward(self, images: Any) -> Any:
        scores = torch.sigmoid(self.cell(images)).flatten(2)
        return torch.cat([self.boxes.expand(images.shape[0], -1, -1), scores], 1)


class Dressed(torch.nn.Module):
    """Arithmetic of TinyDetector with another type of outputs."""

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.wrap = TinyDetector(), wrap

    def forward(self, images: Any) -> Any:
        return self.wrap(self.inner(images))


class RichDetector(torch.nn.Module):
    """The usual parts of detectors: convolutions, a pyramid, attention, top k."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.BatchNorm2d(16), torch.nn.SiLU(inplace=True)
        )
        self.pool = torch.nn.MaxPool2d(2)
        self.norm = torch.nn.LayerNorm(16)
        self.attention = torch.nn.MultiheadAttention(16, 4, dropout=0.1, batch_first=True)
        self.groups = torch.nn.Sequential(
            torch.nn.GroupNorm(4, 32), torch.nn.Hardswish(inplace=True), torch.nn.Dropout(0.2)
        )
        self.head = torch.nn.ConvTranspose2d(32, 6, 2, 2)

    def forward(self, images: Any) -> dict[str, Any]:
        down, across = images.shape[2:]
        high = self.stem(images - images.mean((2, 3), keepdim=True))
        low = self.pool(torch.nn.functional.pad(high, (0, 1, 0, 1)))
        tokens = self.norm(low.flatten(2).transpose(1, 2))
        with torch.no_grad():
            place = torch.arange(tokens.shape[1], device=images.device).float() / tokens.shape[1]
        with torch.autocast("cpu", enabled=False):
            tokens = tokens + self.attention(tokens, tokens, tokens)[0] * place[:, None].cos()
        low = tokens.transpose(1, 2).reshape(low.shape)
        up = torch.nn.functional.interpolate(low, scale_factor=2.0, mode="nearest")
        wide = torch.nn.functional.interpolate(up, size=high.shape[2:], mode="bilinear")
        maps = self.head(self.groups(torch.cat([high, wide], 1))).flatten(2)
        boxes, logits = maps.split([4, 2], 1)
        scores = logits.softmax(1).clamp(0, 1).masked_fill(logits.isnan(), 0)
        best, where = scores.amax(1).topk(20)
        chosen = boxes.gather(2, where[:, None].expand(-1, 4, -1))
        sides = torch.where(chosen > 0, chosen.exp(), chosen.sigmoid())
        grid = torch.stack(torch.meshgrid(place[:3], place[:2], indexing="ij"), -1).flatten()
        wild = torch.einsum("bci,bcj->bij", chosen, sides) / (best.std(1)[:, None, None] + 1)
        wild[:, 0] += grid.sum() + down / across
        order = best.argsort(1, descending=True)
        return {"boxes": sides, "scores": best.gather(1, order), "wild": wild.unbind(1)[0]}


def exported(module: Any = None, batch: int | None = None, metadata: dict[str, Any] | None = None) -> bytes:
    """Export a module for any batch up to four, unless one is given."""
    free = {0: torch.export.Dim("batch", min=1, max=4)}
    program = torch.export.export(
        (module or TinyDetector()).eval(),
        (torch.zeros(batch or 2, 3, SIDE_PX, SIDE_PX),),
        dynamic_shapes=None if batch else (free,),
    )
    buffer = io.BytesIO()
    extra = {"metadata.json": json.dumps(metadata)} if metadata else {}
    torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


@cache
def tiny() -> bytes:
    return exported(metadata={"names": "['deer', 'fox']"})


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3, SIDE_PX, SIDE_PX), np.float32)


def changed(weights: bytes, change: Change) -> bytes:
    """Return the archive with changed records; records for which `change` returns None are removed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(weights)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return buffer.getvalue()


def in_json(part: str, edit: Callable[[dict[str, Any]], None]) -> Change:
    def change(name: str, data: bytes) -> bytes:
        if part not in name:
            return data
        value = json.loads(data)
        edit(value)
        return json.dumps(value).encode()

    return change


def with_record(weights: bytes, name: str, data: bytes) -> bytes:
    """Return the archive with another record."""
    buffer = io.BytesIO(weights)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{name}", data)
    return buffer.getvalue()
