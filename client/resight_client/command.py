"""The command `resight-client`: send a folder with a progress bar, or detect in images."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

from resight_client.send import Progress, Summary, send_folder
from resight_client.server import ClientError, Refused, detect

REFUSED, FAILED, WAITING, INTERRUPTED = 1, 2, 3, 130
EPILOG = """exit codes of send: 0 the server has all images; 1 some were refused or unreadable; 2 nothing could be sent:
wrong token, model, camera or folder; 3 some wait, because the server does not answer; 130 Ctrl-C. Repeat the command
to resume."""
WIDTH = 30


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="resight-client", description=__doc__)
    commands = options.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", required=True, help="URL of Resight, such as http://server:8000")
    shared.add_argument("--model", default="", help="detector; default: the only one of the server")
    shared.add_argument(
        "--token",
        default=os.environ.get("RESIGHT_TOKEN", ""),
        help="bearer token; default: RESIGHT_TOKEN",
    )
    send = commands.add_parser(
        "send", parents=[shared], help="send the images of a folder", epilog=EPILOG
    )
    send.add_argument("folder", help="folder of images, for example a mounted card")
    send.add_argument("--camera", default="", help="camera at which the server files the images")
    send.add_argument("--queue", default=None, help="file that records what was sent")
    send.add_argument(
        "--settle-s",
        type=float,
        default=10.0,
        metavar="S",
        help="leave a file for the next call that changed within S seconds; default 10",
    )
    send.add_argument(
        "--give-up-s",
        type=float,
        default=600.0,
        metavar="S",
        help="end after S seconds without an accepted image; default 600",
    )
    send.add_argument("--again", action="store_true", help="send refused files once more")
    send.add_argument("--quiet", action="store_true", help="no progress bar")
    one = commands.add_parser(
        "detect", parents=[shared], help="detect in images; one line of JSON for each"
    )
    one.add_argument("images", nargs="+", help="image files")
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    args = parser().parse_args(words)
    try:
        return _send(args) if args.command == "send" else _detect(args)
    except KeyboardInterrupt:
        _print("\ninterrupted: repeat the command to resume")
        return INTERRUPTED
    except (ClientError, OSError) as error:
        _print(f"error: {error}")
        return FAILED


def _send(args: argparse.Namespace) -> int:
    bar = Bar(shown=not args.quiet and sys.stderr.isatty())
    try:
        summary = send_folder(
            args.folder,
            args.url,
            args.model,
            args.camera,
            args.token,
            args.queue,
            args.settle_s,
            args.give_up_s,
            args.again,
            bar.show,
            bar.note,
        )
    finally:
        bar.end()
    for path, reason in summary.reasons.items():
        _print(f"{path}: {reason}")
    if summary.stopped:
        _print(f"stopped: {summary.stopped}")
    print(words_of(summary))
    return REFUSED if summary.refused or summary.unreadable else WAITING if summary.waiting else 0


def _detect(args: argparse.Namespace) -> int:
    code = 0
    for image in args.images:
        try:
            answer = detect(image, args.url, args.model, args.token)
        except Refused as error:
            _print(f"{image}: {error}")
            code = REFUSED
        else:
            print(json.dumps({"image": image, **answer}))
    return code


def words_of(summary: Summary) -> str:
    """Return the summary as one line."""
    counts = {
        "sent": summary.sent,
        "there already": summary.kept + summary.before,
        "refused": summary.refused,
        "unreadable": summary.unreadable,
        "still being written": summary.later,
        "waiting": summary.waiting,
    }
    return ", ".join(f"{n} {name}" for name, n in counts.items() if n or name == "sent")


class Bar:
    """A progress bar on standard error, for terminals; notes are printed above it."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._started_s, self._line = shown, time.monotonic(), ""

    def show(self, state: Progress) -> None:
        if not self._shown:
            return
        filled = WIDTH * state.done_bytes // max(1, state.total_bytes)
        rate = state.done_bytes / 1e6 / max(1e-3, time.monotonic() - self._started_s)
        self._line = f"[{'#' * filled:-<{WIDTH}}] {state.done}/{state.total} {rate:.1f} MB/s"
        self._draw()

    def note(self, text: str) -> None:
        print(f"\r\033[K{text}" if self._shown else text, file=sys.stderr)
        self._draw()

    def end(self) -> None:
        if self._line:
            print(file=sys.stderr)

    def _draw(self) -> None:
        if self._line:
            print(f"\r\033[K{self._line}", end="", file=sys.stderr, flush=True)


def _print(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
