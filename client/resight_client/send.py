"""Send the images of a folder: find them, send those that the server lacks, and count.

folder -> settled image files -> queue on disk -> digest -> POST /v1/images, one after the other -> Summary
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resight_client.queue import Found, Queue, default_path
from resight_client.server import Changed, ClientError, Refused, Server, Unreachable, digest_of

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MAX_LISTED = 20


@dataclass(frozen=True)
class Progress:
    """Files and bytes of the folder that were handled in this call, and of those that waited at its start."""

    done: int
    total: int
    done_bytes: int
    total_bytes: int


@dataclass
class Summary:
    """The files of a folder after a call; `ok` if the server has all that could be sent.

    sent, kept           new to the server in this call; stored there before by content
    before               recorded as sent by earlier calls
    refused              by the server, in this call or before; `reasons` has the first ones by path
    unreadable           files that could not be read
    later                files that are being written; the next call sends them
    waiting              files that wait because the server does not answer; `stopped` is the reason
    """

    sent: int = 0
    kept: int = 0
    before: int = 0
    refused: int = 0
    unreadable: int = 0
    later: int = 0
    waiting: int = 0
    stopped: str = ""
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not (self.refused or self.unreadable or self.waiting)


def send_folder(
    folder: str | os.PathLike[str],
    url: str,
    model: str = "",
    camera: str = "",
    token: str = "",
    queue: str | os.PathLike[str] | None = None,
    settle_s: float = 10.0,
    give_up_s: float = 600.0,
    again: bool = False,
    progress: Callable[[Progress], None] = lambda state: None,
    notify: Callable[[str], None] = lambda text: None,
    server: Server | None = None,
) -> Summary:
    """Send the images below a folder that the server lacks. Call it again to resume.

    model       detector that processes them; empty: the only one of the server
    camera      where the server files them
    queue       file that records what was sent; default: below XDG_STATE_HOME
    settle_s    a file that changed within these seconds is left for the next call
    give_up_s   seconds without an accepted image, after which the rest waits for the next call
    again       send files that were refused before once more
    server      replaces `url`, `token`, `give_up_s` and `notify`

    Raises ClientError if the folder is missing, or if the token, the model or the camera is wrong.
    """
    if not os.path.isdir(folder):
        raise ClientError(f"{os.fspath(folder)} is not a folder")
    root = os.fsencode(os.path.realpath(folder))
    if server is None:
        with Server(url, token, give_up_s, notify=notify) as own:
            return send_folder(
                folder,
                url,
                model,
                camera,
                token,
                queue,
                settle_s,
                give_up_s,
                again,
                progress,
                server=own,
            )
    place = Path(queue) if queue is not None else default_path()
    files = Queue(place, f"{url.rstrip('/')} {camera}", root)
    summary = Summary()
    try:
        files.offer(_settled(root, settle_s, summary))
        for file in files.files("refused"):
            if not os.path.lexists(file.path):
                files.forget(file)
        if again:
            files.again()
        summary.before = files.count("sent")[0]
        try:
            if files.count("waiting")[0]:
                _send_waiting(
                    files, server, model or server.only_detector(), camera, summary, progress
                )
        except Unreachable as error:
            summary.stopped = str(error)
        summary.waiting = files.count("waiting")[0] - summary.unreadable
        summary.refused = files.count("refused")[0]
        listed = files.refusals(MAX_LISTED)
        summary.reasons.update((os.fsdecode(path), reason) for path, reason in listed)
    finally:
        files.close()
    return summary


def _send_waiting(
    files: Queue,
    server: Server,
    model: str,
    camera: str,
    summary: Summary,
    progress: Callable[[Progress], None],
) -> None:
    total, total_bytes = files.count("waiting")
    done = done_bytes = 0
    for file in files.files("waiting"):
        try:
            _send(files, file, server, model, camera, summary)
        except FileNotFoundError:
            files.forget(file)
        except OSError as error:
            summary.unreadable += 1
            summary.reasons[os.fsdecode(file.path)] = f"unreadable: {error.strerror}"
        done, done_bytes = done + 1, done_bytes + file.size
        progress(Progress(done, total, done_bytes, total_bytes))


def _send(
    files: Queue, file: Found, server: Server, model: str, camera: str, summary: Summary
) -> None:
    """Send a file unless its content was sent, and record the outcome. Raises OSError, Unreachable, Rejected."""
    sha256, size = digest_of(file.path)
    try:
        if (size, os.stat(file.path).st_mtime_ns) != (file.size, file.mtime_ns):
            raise Changed
        if not size:
            raise Refused("the file is empty")
        is_new = not files.is_sent(sha256) and bool(
            server.send(file.path, size, sha256, model, camera)["media"]["is_new"]
        )
    except Changed:
        files.forget(file)
        summary.later += 1
    except Refused as error:
        files.refused(file, str(error))
    else:
        files.sent(file, sha256)
        summary.sent += is_new
        summary.kept += not is_new


def _settled(root: bytes, settle_s: float, summary: Summary) -> Iterator[Found]:
    """Yield the image files that are complete, and count the others. Hidden files and links are left out."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith(b"."))
        for name in names:
            if name.startswith(b".") or not os.fsdecode(name).lower().endswith(IMAGES):
                continue
            path = os.path.join(folder, name)
            try:
                facts = os.lstat(path)
            except OSError:
                continue  # removed since it was listed
            if not os.path.isfile(path) or os.path.islink(path):
                continue
            # a clock that is ahead gives times in the future: those are not recent either
            if abs(time.time() - facts.st_mtime) < settle_s:
                summary.later += 1
            else:
                yield Found(path, facts.st_size, facts.st_mtime_ns)
