"""The command `resight-client`: send the images of a folder to Resight."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from resight_client.send import Options, Summary, send_folder
from resight_client.server import ClientError, Rejected

REFUSED, REJECTED, WAITING, INTERRUPTED = 1, 2, 3, 130
EPILOG = """exit codes: 0 the server has all images; 1 some were refused or unreadable; 2 sending is impossible: wrong
token, model, camera or folder, or a damaged record; 3 some wait: the server failed, the card disappeared, or files are
still being written; 130 Ctrl-C. Repeat the command to resume."""
SETTLE = "leave a file for the next call that changed within S seconds; default 10"
GIVE_UP = "leave the rest for the next call if one image takes S seconds of attempts; default 600"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="resight-client", description=__doc__)
    commands = options.add_subparsers(required=True)
    send = commands.add_parser("send", help="send the images of a folder", epilog=EPILOG)
    add, token = send.add_argument, os.environ.get("RESIGHT_TOKEN", "")
    add("folder", help="folder of images, for example a mounted card")
    add("--url", required=True, help="URL of Resight, such as http://server:8000")
    add("--model", required=True, help="detector that processes the images")
    add("--camera", default="", help="camera at which the server files the images")
    add("--token", default=token, help="bearer token; default: RESIGHT_TOKEN")
    add("--record", metavar="FILE", help="file that records what was sent")
    add("--settle-s", type=float, default=10.0, metavar="S", help=SETTLE)
    add("--give-up-s", type=float, default=600.0, metavar="S", help=GIVE_UP)
    add("--again", action="store_true", help="send all images again, also refused ones")
    add("--quiet", action="store_true", help="print no progress")
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    args = vars(parser().parse_args(words))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("resight_client").setLevel("WARNING" if args.pop("quiet") else "INFO")
    try:
        summary = send_folder(args.pop("folder"), Options(**args))
    except KeyboardInterrupt:
        print("\ninterrupted: repeat the command to resume", file=sys.stderr)
        return INTERRUPTED
    except (ClientError, OSError, UnicodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REJECTED
    for path, reason in summary.reasons.items():
        print(f"{path}: {reason}", file=sys.stderr)
    if summary.stopped:
        print(f"stopped: {summary.stopped}", file=sys.stderr)
    print(summary)
    return exit_code(summary)


def exit_code(summary: Summary) -> int:
    if isinstance(summary.stopped, Rejected):
        return REJECTED
    if summary.refused or summary.unreadable:
        return REFUSED
    return 0 if summary.ok else WAITING


if __name__ == "__main__":
    sys.exit(main())
