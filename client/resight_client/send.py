"""Send the images of a folder: find them, send those that have no outcome yet, and count.

folder -> settled image files -> record on disk -> digest -> POST /v1/images, one after the other -> Summary
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resight_client.record import Found, Record, default_path
from resight_client.server import Changed, ClientError, Failed, Refused, Rejected, Server, Unreachable, digest_of

IMAGES = (b".jpg", b".jpeg", b".jpe", b".png", b".webp", b".tif", b".tiff", b".bmp")
MAX_LISTED = 20
MAX_FAILED_FILES = 5
"""Images in a row for which the server fails, after which the call ends: none of them is the cause."""
PROGRESS_S = 10.0
log = logging.getLogger("resight_client")


@dataclass(frozen=True)
class Options:
    """Target and options of a call.

    model       detector that processes them
    camera      where the server files them
    record      file that records what was sent; default: below XDG_STATE_HOME
    settle_s    a file that changed within these seconds is left for the next call
    give_up_s   seconds of attempts to send one image, after which the rest waits for the next call
    again       forget what was sent to this server, model and camera or refused, and send it again
    """

    url: str
    model: str
    camera: str = ""
    token: str = field(default="", repr=False)
    record: str | os.PathLike[str] | None = None
    settle_s: float = 10.0
    give_up_s: float = 600.0
    again: bool = False


@dataclass
class Summary:
    """The files of a folder after a call; `ok` if the server has all of them.

    sent, kept           new to the server in this call; stored there before by content
    before               sent by earlier calls, and still in the folder
    refused              by the server, in this call or before
    unreadable           files and folders that could not be read or disappeared
    later                files that are being written; the next call sends them
    waiting              files that wait for the next call, because the server failed or the call stopped
    stopped              the error that ended the call; Rejected if a next call will fail too
    reasons              the first ones that were not sent, by path
    """

    sent: int = 0
    kept: int = 0
    before: int = 0
    refused: int = 0
    unreadable: int = 0
    later: int = 0
    waiting: int = 0
    stopped: ClientError | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        left = self.refused or self.unreadable or self.later or self.waiting
        return not (left or self.stopped)

    def __str__(self) -> str:
        counts = {
            "sent": self.sent,
            "there already": self.kept + self.before,
            "refused": self.refused,
            "unreadable": self.unreadable,
            "still being written": self.later,
            "waiting": self.waiting,
        }
        return ", ".join(f"{n} {name}" for name, n in counts.items() if n or name == "sent")

    def list(self, path: bytes, reason: str) -> None:
        if len(self.reasons) < MAX_LISTED:
            self.reasons[os.fsdecode(path)] = reason


def send_folder(folder: str | os.PathLike[str], options: Options, server: Server | None = None) -> Summary:
    """Send the images below a folder that the server lacks. Call it again to resume.

    `server` replaces the one of the options, and is closed. Raises Rejected if nothing was attempted: the folder is
    missing, or the URL, the token or the record is invalid. Later errors are in `stopped` of the summary.
    """
    root = os.fsencode(os.path.realpath(folder))
    if not os.path.isdir(root):
        raise Rejected(f"{os.fspath(folder)} is not a folder")
    if server is None:
        server = Server(options.url, options.token, options.give_up_s)
    target = "\n".join((server.url, options.model, options.camera))
    with (
        contextlib.closing(server),
        contextlib.closing(Record(Path(options.record or default_path()), target)) as record,
    ):
        if options.again:
            record.clear()
        summary = _Call(root, options, server, record).run()
    if summary == Summary():
        summary.stopped = Rejected(f"no images below {os.fspath(folder)}: is the card mounted?")
    return summary


class _Call:
    """One pass over a folder."""

    def __init__(self, root: bytes, options: Options, server: Server, record: Record) -> None:
        self._root, self._options, self._server, self._record = root, options, server, record
        self._query = {"model": options.model}
        if options.camera:
            self._query["camera"] = options.camera
        self._root_device = self._device = device_of(root)
        self._summary, self._failed_files = Summary(), 0

    def run(self) -> Summary:
        """Handle each file; after an error that ends the call, count the others only."""
        summary, shown_s = self._summary, time.monotonic()
        try:
            for file in self._settled():
                self._handle(file)
                if time.monotonic() - shown_s > PROGRESS_S:
                    log.info("%s; at %s", summary, os.fsdecode(file.path))
                    shown_s = time.monotonic()
        except (Rejected, Unreachable) as error:
            summary.stopped = error
        return summary

    def _handle(self, file: Found) -> None:
        summary, refusal = self._summary, self._record.outcome(file)
        try:
            if refusal is not None:
                summary.before += not refusal
            elif summary.stopped:
                summary.waiting += 1
            else:
                refusal = self._send(file)
                self._failed_files = 0
            if refusal:
                summary.refused += 1
                summary.list(file.path, refusal)
        except Changed:
            summary.later += 1
        except OSError as error:
            self._missed(file.path, error)
        except Failed as error:
            summary.waiting += 1
            summary.list(file.path, str(error))
            self._failed_files += 1
            if self._failed_files == MAX_FAILED_FILES:
                summary.stopped = Unreachable(str(error))
        except (Rejected, Unreachable) as error:
            summary.waiting += 1
            summary.stopped = error

    def _send(self, file: Found) -> str:
        """Send a file unless its content was sent; record and return the reason if it is refused, else "".

        Raises OSError and ClientError.
        """
        sha256, size = digest_of(file.path)
        if (size, os.stat(file.path).st_mtime_ns) != (file.size, file.mtime_ns):
            raise Changed
        refusal, is_new = "" if size else "the file is empty", False
        try:
            if size and not self._record.has_content(sha256):
                is_new = self._server.send(file.path, size, sha256, self._query)
        except Refused as error:
            refusal = str(error)
        self._record.add(file, sha256, refusal)
        if not refusal:
            self._summary.sent += is_new
            self._summary.kept += not is_new
        return refusal

    def _settled(self) -> Iterator[Found]:
        """Yield the image files that are complete, and count the others. Hidden files and links are left out."""
        folders = [self._root]
        while folders:
            folder, below = folders.pop(), list[bytes]()
            try:
                self._device = device_of(folder)
                with os.scandir(folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._unreadable(folder, error)
                continue
            for entry in listed:
                if entry.name.startswith(b"."):
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
                    elif entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(IMAGES):
                        facts = os.lstat(entry.path)
                        # a clock that is ahead gives times in the future: those are not recent either
                        if abs(time.time() - facts.st_mtime) >= self._options.settle_s:
                            yield Found(entry.path, facts.st_size, facts.st_mtime_ns)
                        else:
                            self._summary.later += 1
                except OSError as error:
                    self._missed(entry.path, error)
            folders += reversed(below)

    def _missed(self, path: bytes, error: OSError) -> None:
        """Count a file that cannot be read, unless it was removed from a folder that is still there."""
        try:
            is_removed = device_of(os.path.dirname(path)) == self._device
        except OSError:
            is_removed = False
        if not (isinstance(error, FileNotFoundError) and is_removed):
            self._unreadable(path, error)

    def _unreadable(self, path: bytes, error: OSError) -> None:
        """Count a file or folder that cannot be read. Raises Unreachable if the root disappeared."""
        with contextlib.suppress(OSError):
            if device_of(self._root) == self._root_device:
                self._summary.unreadable += 1
                self._summary.list(path, f"unreadable: {error.strerror}")
                return
        raise Unreachable(f"{os.fsdecode(self._root)} disappeared: is the card still mounted?")


def device_of(folder: bytes) -> int:
    """Return the device of a folder; an unmounted card leaves a folder of another device, or none."""
    return os.stat(folder).st_dev
