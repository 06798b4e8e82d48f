"""Read and write files in a local folder or at an fsspec URL such as s3://bucket/prefix.

`Folder` is the only place that builds paths or file systems. Credentials and endpoints come from the usual AWS_*
variables.
"""

# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
import tenacity
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from model_store.errors import Conflict, ResightError, StorageUnreachable, StorageUnsafe
from model_store.storage_errors import http_status, is_without_bucket, storage_error

CREATE_ATTEMPTS = 8
UPDATE_ATTEMPTS = 20
LOCK = ".lock"
"""Empty file next to files that are updated on a disk: processes of this program lock it to write in turn. It stays."""
ONE_PUT = {"chunksize": 5 * 2**29}
"""Option for s3fs: send up to half of S3's limit of 5 GiB in one request, not in parts. At the end of an upload in
parts, some servers, such as Ceph's gateway, ignore the condition that the file must not exist."""
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Folder:
    """A folder at `url`. Raises StorageUnreachable for an unknown protocol."""

    url: str
    fs: AbstractFileSystem = field(init=False, repr=False, compare=False)
    root: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            if is_local(self.url):  # fsspec would split a path at `::`
                fs: AbstractFileSystem = LocalFileSystem()
                root = os.path.abspath(os.path.expanduser(self.url.removeprefix("file://")))
            else:
                fs, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise StorageUnreachable(
                f"{self.url}: {error}; for s3:// install the extra: pip install 'resight[s3]'"
            ) from error
        object.__setattr__(self, "fs", fs)
        object.__setattr__(self, "root", root.rstrip("/"))

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "url", state["url"])
        self.__post_init__()

    def path(self, relative: str) -> str:
        """Return the full path. Raises StorageUnreachable for one that leaves the folder."""
        if ".." in relative.split("/") or "\0" in relative:
            raise StorageUnreachable(f"{relative!r} is outside {self.url}: use a path below it")
        return f"{self.root}/{relative}" if relative else self.root

    def read(self, relative: str) -> bytes:
        """Return the bytes of a file. Raises FileNotFoundError (also if a parent is not a folder), MemoryError.

        Raises StorageUnreachable, possibly caused by a PermissionError or IsADirectoryError.
        """
        path = self.path(relative)
        try:
            with self._attempt("read", relative, _NOT_THERE):
                return bytes(self.fs.cat_file(path))  # type: ignore[arg-type]
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error

    def read_inside(self, place: str, name: str, max_bytes: int) -> bytes:
        """Return the file `name` below the untrusted folder `place`.

        Raises FileNotFoundError, StorageUnreachable. Raises StorageUnsafe for a link to a file outside `place`, a
        device or pipe, and more than `max_bytes`. All are raised before a byte is read.
        """
        relative = f"{place}/{name}"
        path = self.path(relative)
        try:
            with self._attempt("access", relative, _NOT_THERE):
                local = is_local(self.url)
                size = _size_inside(self.path(place), path) if local else self.fs.size(path)
        except _NOT_THERE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        if size is None or size > max_bytes:
            raise StorageUnsafe(f"{path} has {size} bytes; the limit is {max_bytes}")
        return self.read(relative)

    def exists(self, relative: str = "") -> bool:
        with self._attempt("access", relative):
            return bool(self.fs.exists(self.path(relative)))

    def names(self, relative: str = "") -> list[str]:
        """Return the names directly below, none if the folder does not exist or is a file."""
        path = self.path(relative)
        try:
            with self._attempt("list", relative, _NOT_THERE):
                listed = self.fs.ls(path, detail=False)
        except _NOT_THERE:
            return []
        below = {str(name).rstrip("/") for name in listed} - {path}
        return sorted({name.rsplit("/", 1)[-1] for name in below})

    def mark(self, relative: str) -> str:
        """Return a text that changes when a file directly below is added, removed or written. Empty without a folder.

        Raises StorageUnreachable.
        """
        try:
            with self._attempt("list", relative, _NOT_THERE):
                listed: list[dict[str, Any]] = self.fs.ls(self.path(relative), detail=True)  # with times, or ETags
        except _NOT_THERE:
            return ""
        return hashlib.sha256(repr(sorted(listed, key=lambda file: str(file["name"]))).encode()).hexdigest()

    def is_empty(self) -> bool:
        """Return True if the folder is empty or missing. Lists at most two names of a disk or S3."""
        with self._attempt("list"):
            try:
                if is_local(self.url):
                    with os.scandir(self.root or "/") as entries:
                        return next(entries, None) is None
                return _is_empty_s3(self.fs, self.root) if "s3" in self.fs.protocol else not self.names()
            except _NOT_THERE:
                return True

    def require_present(self) -> None:
        """Raise StorageUnreachable if the folder is empty or missing: perhaps its disk is not mounted."""
        if self.is_empty():
            raise StorageUnreachable(f"{self.url} is empty or unavailable; is it mounted?")

    def write(self, relative: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file atomically: readers see the old bytes or the new ones, never a part.

        A local file has `mode` as soon as its name exists, and never a wider one. Raises StorageFull,
        StorageUnreachable.
        """
        path = self.path(relative)
        with self._attempt("write", relative):
            if is_local(self.url):
                _write_local(Path(path), data, mode=mode)
            else:
                self.fs.pipe_file(path, data)

    def create(self, relative: str, data: bytes) -> None:
        """Create a file atomically: if several processes create it, one succeeds.

        Raises FileExistsError if it exists (possibly created by this call, if the response was lost). Raises
        StorageUnsafe if a disk does not support it. Raises as `write`. S3 must pass `require_create`.
        """
        path = self.path(relative)
        with self._attempt("write", relative, (FileExistsError,)):
            if is_local(self.url):
                _write_local(Path(path), data, exclusive=True)
            else:
                _create_remote(self.fs, path, data)

    def update(self, relative: str, change: Callable[[bytes | None], bytes | None], mode: int = 0o644) -> None:
        """Replace a file by `change(its bytes)`; `change` gets None if the file does not exist. b"" removes the file.

        No other writer's change is lost: if the file was replaced after it was read, `change` is called again with the
        new bytes. After a lost acknowledgement, these are the ones it returned. Nothing is written if it returns None
        or the same bytes, or raises. On a disk, a change by another program in the last millisecond may be lost. S3
        needs If-Match.

        Raises Conflict after UPDATE_ATTEMPTS, StorageUnsafe, StorageFull, StorageUnreachable.
        """
        for _ in range(UPDATE_ATTEMPTS):
            try:
                old = self.read(relative)
            except FileNotFoundError:
                old = None
            new = change(old)
            if new is None or new == (old or b"") or self._exchange(relative, old, new, mode):
                return
        raise Conflict(f"{self.url}/{relative} is being changed all the time; try again later")

    def _exchange(self, relative: str, old: bytes | None, new: bytes, mode: int) -> bool:
        """Write `new` if the file still contains `old` (None: does not exist). Return False if it does not."""
        try:
            with self._attempt("write", relative, (FileExistsError,)):
                if is_local(self.url):
                    return _compare_and_write_local(Path(self.path(relative)), old, new, mode)
                require_create(self.url)
                if old is None:
                    self.create(relative, new)
                    return True
                return _compare_and_write_remote(self.fs, self.path(relative), old, new)
        except FileExistsError:
            return False

    def require_create(self) -> None:
        """Raise StorageUnsafe if the store overwrites existing files on a conditional create.

        Some S3 servers ignore the condition, and two writers of a table would silently undo each other's changes.
        """
        probe = f".resight-probe-{secrets.token_hex(8)}"
        try:
            with contextlib.suppress(FileExistsError):  # a repetition of the request found its own file
                self.create(probe, b"1")
            with contextlib.suppress(FileExistsError):
                self.create(probe, b"2")
                raise StorageUnsafe(
                    f"{self.url} ignores conditional writes (If-None-Match): rows of concurrent writers would "
                    "silently be lost. Use a store that supports them, such as S3, MinIO or Ceph"
                )
        finally:
            with contextlib.suppress(Exception):
                self.fs.rm(self.path(probe))

    def remove(self, relative: str) -> None:
        """Remove a file, or a folder with its contents. Raises StorageUnreachable."""
        if self.exists(relative):
            with (
                contextlib.suppress(FileNotFoundError),  # removed by another process
                self._attempt("remove", relative, (FileNotFoundError,)),
            ):
                self.fs.rm(self.path(relative), recursive=True)

    @contextlib.contextmanager
    def _attempt(self, verb: str, relative: str = "", passed: tuple[type[Exception], ...] = ()) -> Generator[None]:
        """Raise StorageFull or StorageUnreachable for any error of a library, except those of `passed`."""
        try:
            yield
        except (ResightError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, passed) and not is_without_bucket(error):
                raise
            raise storage_error(f"{verb} {self.url}/{relative}".rstrip("/"), error) from error


@functools.cache
def require_create(url: str) -> None:
    """Run `Folder.require_create` once per process and remote URL, before the first write; disks need no check."""
    if not is_local(url):
        Folder(url).require_create()


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def absolute(url: str) -> str:
    """Return a URL that is valid in every process: local paths become absolute and expanded, schemes lower-case."""
    if not is_local(url):
        scheme, _, place = url.partition("://")
        return f"{scheme.lower()}://{place.rstrip('/')}"
    return str(Path(os.path.expanduser(url.removeprefix("file://"))).resolve())


def path_of(uri: str) -> str:
    """Return the local folder of a file: URI, in which libraries quote all except ASCII letters and digits."""
    return unquote(uri.removeprefix("file://")).rstrip("/")


def _size_inside(place: str, path: str) -> int:
    """Return the size in bytes of a regular file. Raises StorageUnsafe for other kinds or outside `place`; OSError."""
    real = os.path.realpath(path)
    if not real.startswith(f"{os.path.realpath(place)}{os.sep}"):
        raise StorageUnsafe(f"{path} is a link to a file outside {place}: copy the file itself")
    status = os.stat(real)
    if not stat.S_ISREG(status.st_mode):
        raise StorageUnsafe(f"{path} is not a regular file: copy the file itself")
    return status.st_size


def _write_local(path: Path, data: bytes, exclusive: bool = False, mode: int = 0o644) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # would mean that `path` exists
        words = os.strerror(errno.ENOTDIR)
        raise NotADirectoryError(errno.ENOTDIR, words, str(path.parent)) from error
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        (_link if exclusive else os.replace)(temporary, path)
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # some file systems cannot
            folder = os.open(path.parent, os.O_RDONLY)
            opened.callback(os.close, folder)
            os.fsync(folder)  # else a power cut may lose the name
    finally:
        Path(temporary).unlink(missing_ok=True)


def _link(temporary: str, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StorageUnsafe(
            f"{path.parent} is on a file system without hard links, where two writers could undo each other's "
            "changes: choose a folder on another file system"
        ) from error


def _compare_and_write_local(path: Path, old: bytes | None, new: bytes, mode: int) -> bool:
    with _locked(path.parent):
        if (path.read_bytes() if path.is_file() else None) != old:
            return False
        if new:
            _write_local(path, new, mode=mode)
        else:
            path.unlink()
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Lock out other processes that use this lock, until the block or this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _compare_and_write_remote(fs: Any, path: str, old: bytes, new: bytes) -> bool:
    """Replace `old` by `new`. On stores other than S3, a write between comparison and replacement is lost."""
    if "s3" not in fs.protocol:
        same = bytes(fs.cat_file(path)) == old
        if same and new:
            fs.pipe_file(path, new)
        elif same:
            fs.rm_file(path)
        return same
    bucket, key, _ = fs.split_path(path)
    place = {"Bucket": bucket, "Key": key, **fs.req_kw}
    try:
        etag = fs.call_s3("head_object", **place)["ETag"]
        if bytes(fs.cat_file(path)) != old:
            return False
        write = {"method": "put_object", "Body": new} if new else {"method": "delete_object"}
        _retrying_conflicts()(fs.call_s3, IfMatch=etag, **write, **place)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if http_status(error) == HTTPStatus.PRECONDITION_FAILED:
            return False
        raise


def _retrying_conflicts() -> tenacity.Retrying:
    """Return a retry policy for S3's status 409, which reports a concurrent write to the same file."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: http_status(error) == HTTPStatus.CONFLICT),
        stop=tenacity.stop_after_attempt(CREATE_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        reraise=True,
    )


def _create_remote(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Create a file. Raises FileExistsError if it exists, for which S3 responds with 412."""
    try:
        _retrying_conflicts()(fs.pipe_file, path, data, mode="create", **(ONE_PUT if "s3" in fs.protocol else {}))
    except OSError as error:
        # s3fs detects it by a field of AWS's response that other servers omit
        if http_status(error) == HTTPStatus.PRECONDITION_FAILED:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        raise


def _is_empty_s3(fs: Any, root: str) -> bool:
    bucket, key, _ = fs.split_path(root)
    prefix = f"{key}/" if key else ""
    page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=2, **fs.req_kw)
    keys = {entry["Key"] for entry in page.get("Contents", ())}
    return keys <= {prefix}  # the folder's own marker
