"""Measure the page as a person sees it: first paint, pictures in the grid, the next picture by key, and thumbnails.

python benchmarks/page_browser.py [--images 1000000] [--pictures 300] [--keys 100] [--quick]
The archive of benchmarks/page.py and real JPEGs of 12 MP, newer than all its images, behind `resight serve` and
in Chromium with a window of 1280 x 800 px. `cold` is the first look at the pictures, `warm` the second in a new browser
context: thumbnails are then files of the server, and the browser has none. A key counts until the next picture is
decoded. `thumbnail` is one picture to 320 px, CPU of one thread.
"""

# pyright: reportMissingImports=false
# (the group `dev`)

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from harness import ROOT, arguments_of, facts, keep, need, table, verdicts
from PIL import ExifTags, Image

from archive.delta.tables import Tables
from benchmarks.page import MINUTES, START, generate
from benchmarks.sized_archive import DISTINCT, frame
from model_store.images.thumbnails import thumbnail
from tests.fixtures_local import copy_of_models
from tests.support.own_server import OwnServer

SIZE_PX = (4000, 3000)
SHOWN, WINDOW = 8, {"width": 1280, "height": 800}
CHROMIUM = os.environ.get("RESIGHT_CHROMIUM", "/usr/bin/chromium")
PAINT_MS, KEY_MS, THUMBNAIL_MS = 1000.0, 100.0, 25.0
_FILLED = f"""() => {{
    const shown = [...document.querySelectorAll("#grid img")].filter((image) => image.naturalWidth);
    return shown.length >= {SHOWN} && performance.now();
}}"""
_PAINT = 'performance.getEntriesByName("first-contentful-paint")[0]?.startTime'
_NEXT = """(key) => new Promise((done) => {
    const picture = document.querySelector("#stage img"), before = picture.src, start = performance.now();
    const look = async () => {
        if (picture.src === before) return requestAnimationFrame(look);
        await picture.decode().catch(() => {});
        requestAnimationFrame(() => done(performance.now() - start));
    };
    document.getElementById("stage").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    look();
})"""


def main() -> None:
    arguments = arguments_of(__doc__, images=1_000_000, pictures=300, keys=100)
    need("playwright", group="dev")
    images = 20_000 if arguments.quick else arguments.images
    pictures = 40 if arguments.quick else arguments.pictures
    keys = min(arguments.keys, pictures - 10)
    result = facts("page_browser", vars(arguments) | {"images": images, "pictures": pictures})
    with tempfile.TemporaryDirectory(prefix="resight-page-") as place:
        home, folder = Path(place) / "home", Path(place) / "pictures"
        copy_of_models(home)  # a server without a model is not ready
        generate(Tables(str(home / "tables")), images)
        frames = [frame(SIZE_PX, which) for which in range(min(DISTINCT, pictures))]
        write(folder, frames, pictures)
        environment = {"RESIGHT_HOME": str(home)}
        words = [sys.executable, "-m", "resight", "ingest", str(folder)]
        subprocess.run(words, cwd=ROOT, env={**os.environ, **environment}, check=True)
        with OwnServer(Path(place) / "log", environment) as server:
            result |= look(f"{server.url}/ui", keys)
    result["thumbnail_ms"] = thumbnails(frames)
    report(result)


def write(folder: Path, frames: list[bytes], pictures: int) -> None:
    """Write pictures with times after those of the synthetic archive, five minutes apart."""
    folder.mkdir()
    first = START + timedelta(minutes=MINUTES + 5)
    for number in range(pictures):
        tags = exif(first + timedelta(minutes=5 * number))
        jpeg = frames[number % len(frames)]
        segment = b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags
        (folder / f"{number:05}.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])


def exif(taken: datetime) -> bytes:
    tags = Image.Exif()
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{taken:%Y:%m:%d %H:%M:%S}"
    tags[ExifTags.Base.Make] = "camera"
    return tags.tobytes()


def look(url: str, keys: int) -> dict[str, Any]:
    """Return milliseconds of the grid, cold and warm, of the jump to the oldest day, and of each key."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        began = time.perf_counter()
        page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
        while (answer := page.goto(f"{url}/v1/images/count")) is None or answer.status != 200:
            time.sleep(1)  # 503 while the index is built
        found["index_s"] = round(time.perf_counter() - began, 1)
        for name in ("cold", "warm"):
            page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
            page.goto(f"{url}/images")
            filled = page.wait_for_function(_FILLED, timeout=60_000).json_value()
            paint = page.evaluate(_PAINT)
            found[name] = {"paint_ms": round(paint), f"first {SHOWN}, ms": round(filled)}
        page.goto(f"{url}/review?status=missing")
        page.wait_for_function('() => document.querySelector("#stage img")?.naturalWidth')
        took = list[float]()
        for _ in range(keys):
            took.append(page.evaluate(_NEXT, "ArrowRight"))
            page.wait_for_timeout(300)  # a person looks at each picture
        found["key_ms"] = spread(took)
        browser.close()
    return found


def thumbnails(frames: list[bytes]) -> dict[str, float]:
    took = list[float]()
    for jpeg in frames:
        began = time.thread_time()
        thumbnail(jpeg, 320)
        took.append((time.thread_time() - began) * 1e3)
    return spread(took) | {"mean file, MB": round(float(np.mean([len(f) for f in frames])) / 1e6, 2)}


def spread(took: list[float]) -> dict[str, float]:
    return {f"p{rank}": round(float(np.percentile(took, rank)), 1) for rank in (50, 95)}


def report(result: dict[str, Any]) -> None:
    table([{"grid": name} | result[name] for name in ("cold", "warm")])
    table([{"of": name} | result[name] for name in ("key_ms", "thumbnail_ms")])
    bounds = [
        ("first paint, ms", max(result[name]["paint_ms"] for name in ("cold", "warm")), PAINT_MS),
        ("key to next picture, ms p95", result["key_ms"]["p95"], KEY_MS),
        ("thumbnail, ms p50", result["thumbnail_ms"]["p50"], THUMBNAIL_MS),
    ]
    verdicts(result, [(name, value, f"≤ {most:g}", value <= most) for name, value, most in bounds])
    keep(result)


if __name__ == "__main__":
    main()
