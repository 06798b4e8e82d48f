"""Make a sample camera-trap archive; equal arguments make equal archives.

(images, seed)  --plan-->  shots  --render, encode-->  OUT/camera/date/IMG_0001.JPG ...  +  Summary

    python -m examples.sample_archive OUT [--images 200] [--seed 0]

The archive appears atomically: it is written next to OUT and renamed. A note next to OUT records
the arguments and the file sizes; if they are unchanged, a second run does nothing.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.archive_plan import CAMERAS, MIN_IMAGES, Shot, plan
from examples.odd_files import UNREADABLE, encode
from examples.scenes import render

RECIPE = 1  # increase it if equal arguments give other files


@dataclass(frozen=True)
class Summary:
    """The contents of an archive, for tests. Paths are relative to it, with forward slashes."""

    files: int
    unique_files: int  # by their bytes
    expected_failures: tuple[str, ...]  # no decoder can read them
    truncated: tuple[str, ...]  # JPEGs cut in their data: they decode, in part
    duplicates: tuple[tuple[str, str], ...]  # (original, copy)
    cmyk: tuple[str, ...]
    rotated: tuple[str, ...]  # EXIF orientation other than 1
    blank: tuple[str, ...]
    night: tuple[str, ...]


def build(out: Path, images: int = 200, seed: int = 0) -> Summary:
    """Write an archive of `images` files to `out` unless it already exists.

    Raises ValueError if `images` is too small, FileExistsError if `out` contains anything else.
    """
    shots = plan(images, seed)
    out = out.resolve()
    arguments = {"recipe": RECIPE, "images": images, "seed": seed}
    if not _is_vacant(out):
        if not _holds(out, arguments):
            raise FileExistsError(
                f"{out} is not empty and is not the archive of --images {images} --seed {seed}: "
                "use another folder or remove it"
            )
        return summarise(shots)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        unfinished = Path(folder) / "archive"
        _write(shots, seed, unfinished)
        note = {**arguments, "sizes_bytes": _sizes(unfinished)}
        _note_of(out).write_text(json.dumps(note, indent=1), encoding="utf-8")
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    return summarise(shots)


def summarise(shots: tuple[Shot, ...]) -> Summary:
    """Return the summary of an archive of these shots."""

    def paths(wanted: Callable[[Shot], bool]) -> tuple[str, ...]:
        return tuple(shot.path for shot in shots if wanted(shot))

    duplicates = tuple((shot.copy_of, shot.path) for shot in shots if shot.copy_of)
    return Summary(
        files=len(shots),
        unique_files=len(shots) - len(duplicates),
        expected_failures=paths(lambda shot: shot.kind in UNREADABLE),
        truncated=paths(lambda shot: shot.kind == "cut_data"),
        duplicates=duplicates,
        cmyk=paths(lambda shot: shot.kind == "cmyk_jpeg"),
        rotated=paths(lambda shot: shot.orientation != 1),
        blank=paths(lambda shot: shot.subject is None),
        night=paths(lambda shot: shot.light == "night"),
    )


def _write(shots: tuple[Shot, ...], seed: int, folder: Path) -> None:
    """Write the files of all shots below `folder`, copies last."""
    for shot in sorted(shots, key=lambda shot: shot.copy_of is not None):
        file = folder / shot.path
        file.parent.mkdir(parents=True, exist_ok=True)
        if shot.copy_of is None:
            file.write_bytes(encode(render(shot, seed), shot))
        else:
            file.write_bytes((folder / shot.copy_of).read_bytes())


def _is_vacant(out: Path) -> bool:
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def _holds(out: Path, arguments: dict[str, int]) -> bool:
    """Return whether `out` is the archive of these arguments, by its note and file sizes."""
    try:
        note = json.loads(_note_of(out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return note == {**arguments, "sizes_bytes": _sizes(out)}


def _note_of(out: Path) -> Path:
    """Return the path of the note, outside the archive, which contains only camera files."""
    return out.with_name(f".{out.name}.sample.json")


def _sizes(folder: Path) -> dict[str, int]:
    return {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()
    }


def _describe(out: Path, summary: Summary) -> str:
    unreadable, pairs = len(summary.expected_failures), len(summary.duplicates)
    return "\n".join(
        (
            f"{out}: {summary.files} files of {len(CAMERAS)} cameras, {pairs} of them duplicates",
            f"  {len(summary.night):5} at night",
            f"  {len(summary.blank):5} blank",
            f"  {len(summary.rotated):5} stored rotated",
            f"  {len(summary.cmyk):5} CMYK",
            f"  {len(summary.truncated):5} cut in the data, readable in part",
            f"  {unreadable:5} unreadable: {', '.join(summary.expected_failures)}",
        )
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.sample_archive", description="Make a sample camera-trap archive."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; must be empty")
    parser.add_argument("--images", type=int, default=200, help=f"number of files, at least {MIN_IMAGES}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        summary = build(options.out, options.images, options.seed)
    except (ValueError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(_describe(options.out, summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
