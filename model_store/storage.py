"""Any place with files: a local folder or an fsspec URL such as s3://bucket/prefix.

One thin value, `Folder`, so that no other module builds paths or file systems. Credentials and
endpoints come from the usual AWS_* variables.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
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

from model_store.errors import Conflict, StorageUnreachable, StorageUnsafe

CREATE_ATTEMPTS = 8
UPDATE_ATTEMPTS = 20
LOCK = ".lock"
"""Beside files that are updated on a disk: writers of this program take turns. It stays, and is empty."""
ONE_PUT = {"chunksize": 5 * 2**29}
"""For s3fs: what S3 takes in one request (5 GiB, of which this is half) is not sent in parts. At their end some
servers, Ceph's gateway among them, ignore the condition that the file shall not be there."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Folder:
    """A folder at `url`. Raises StorageUnreachable (never FileNotFound) for an unknown protocol."""

    url: str
    fs: AbstractFileSystem = field(init=False, repr=False, compare=False)
    root: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            if is_local(self.url):  # fsspec would cut a path in two at `::`
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
            raise StorageUnreachable(f"{relative!r} leads out of {self.url}: use a path below it")
        return f"{self.root}/{relative}" if relative else self.root

    def read(self, relative: str) -> bytes:
        """Whole file. Raises FileNotFoundError, also below what is no folder, MemoryError, and
        StorageUnreachable, of which a PermissionError or IsADirectoryError may be the cause.
        """
        try:
            return bytes(self.fs.cat_file(self.path(relative)))  # type: ignore[arg-type]
        except (FileNotFoundError, MemoryError):
            raise
        except NotADirectoryError as error:
            words = os.strerror(errno.ENOENT)
            raise FileNotFoundError(errno.ENOENT, words, self.path(relative)) from error
        except Exception as error:
            raise StorageUnreachable(f"cannot read {self.url}/{relative}: {error}") from error

    def read_inside(self, place: str, name: str, max_bytes: int) -> bytes:
        """Return the file `name` below the folder `place`, which nobody has vouched for.

        Raises FileNotFoundError, StorageUnreachable, and StorageUnsafe for a link that leads out of `place`, a
        device or pipe, and more than `max_bytes`: all before a byte is read.
        """
        relative = f"{place}/{name}"
        path = self.path(relative)
        try:
            local = is_local(self.url)
            size = _size_inside(self.path(place), path) if local else self.fs.size(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        except StorageUnsafe:
            raise
        except Exception as error:
            raise StorageUnreachable(f"cannot look at {self.url}/{relative}: {error}") from error
        if size is None or size > max_bytes:
            raise StorageUnsafe(f"{path} has {size} bytes; at most {max_bytes} are read")
        return self.read(relative)

    def exists(self, relative: str = "") -> bool:
        try:
            return bool(self.fs.exists(self.path(relative)))
        except Exception as error:
            raise StorageUnreachable(f"cannot look at {self.url}/{relative}: {error}") from error

    def names(self, relative: str = "") -> list[str]:
        """Names directly below; empty when there is no such folder, or a file in its place."""
        path = self.path(relative)
        try:
            listed = self.fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except Exception as error:
            raise StorageUnreachable(f"cannot list {self.url}/{relative}: {error}") from error
        below = {str(name).rstrip("/") for name in listed} - {path}
        return sorted({name.rsplit("/", 1)[-1] for name in below})

    def is_empty(self) -> bool:
        """Also where there is no such folder. It asks a disk and S3 for a name or two, however many there are."""
        try:
            if is_local(self.url):
                with os.scandir(self.root or "/") as found:
                    return next(found, None) is None
            if "s3" not in self.fs.protocol:
                return not self.names()
            return _is_empty_s3(self.fs, self.root)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except Exception as error:
            raise StorageUnreachable(f"cannot list {self.url}: {error}") from error

    def write(self, relative: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file in one step: readers see the old bytes or the new ones, never a part.

        A local file has `mode` from the moment it exists under its name, and no wider one before.
        """
        path = self.path(relative)
        if is_local(self.url):
            _write_local(Path(path), data, mode=mode)
        else:
            self.fs.pipe_file(path, data)

    def create(self, relative: str, data: bytes) -> None:
        """Write a file that is not there yet, in one step: of several writers at once, one succeeds.

        Raises FileExistsError when it is there (after a lost answer it may be one's own), StorageUnsafe
        where a disk cannot do it, StorageUnreachable. See `require_create` for what S3 must do.
        """
        path = self.path(relative)
        try:
            if is_local(self.url):
                _write_local(Path(path), data, exclusive=True)
            else:
                _create_remote(self.fs, path, data)
        except (FileExistsError, StorageUnsafe):
            raise
        except Exception as error:
            raise StorageUnreachable(f"cannot write {self.url}/{relative}: {error}") from error

    def update(self, relative: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Replace a file by `change(its bytes)`, or None for no file. No other writer's change is lost: if the
        file was replaced since it was read, `change` is called again with the new bytes; if an acknowledgement was
        lost, with its own. Nothing is written if it returns None or the same bytes, or raises. On a disk, a change by
        another program in the last millisecond may be lost. S3 needs If-Match.

        Raises Conflict after UPDATE_ATTEMPTS, StorageUnsafe, StorageUnreachable.
        """
        for _ in range(UPDATE_ATTEMPTS):
            try:
                old = self.read(relative)
            except FileNotFoundError:
                old = None
            new = change(old)
            if new is None or new == old or self._exchange(relative, old, new):
                return
        raise Conflict(f"{self.url}/{relative} is being changed all the time; ask again")

    def _exchange(self, relative: str, old: bytes | None, new: bytes) -> bool:
        """Write `new` if the file still holds `old` (None: there is no file). False: it does not."""
        try:
            if is_local(self.url):
                return _exchange_local(Path(self.path(relative)), old, new)
            if old is None:
                self.create(relative, new)
                return True
            return _exchange_remote(self.fs, self.path(relative), old, new)
        except FileExistsError:
            return False
        except (StorageUnreachable, StorageUnsafe):
            raise
        except Exception as error:
            raise StorageUnreachable(f"cannot write {self.url}/{relative}: {error}") from error

    def require_create(self) -> None:
        """Raises StorageUnsafe when the store overwrites where it was told to create: some S3 servers
        ignore the condition, and two writers of a table would silently undo each other.
        """
        probe = f".resight-probe-{secrets.token_hex(8)}"
        try:
            self.create(probe, b"1")
            with contextlib.suppress(FileExistsError):
                self.create(probe, b"2")
                raise StorageUnsafe(
                    f"{self.url} ignores conditional writes (If-None-Match): rows of two writers would "
                    "silently be lost. Use a store that has them, such as S3, MinIO or Ceph"
                )
        finally:
            with contextlib.suppress(Exception):
                self.fs.rm(self.path(probe))

    def remove(self, relative: str) -> None:
        """Remove a file or folder with all below it. Raises StorageUnreachable."""
        if self.exists(relative):
            try:
                self.fs.rm(self.path(relative), recursive=True)
            except Exception as error:
                message = f"cannot remove {self.url}/{relative}: {error}"
                raise StorageUnreachable(message) from error


@functools.cache
def require_create(url: str) -> None:
    """Before the first write of this process to a remote place: `Folder.require_create`; disks can."""
    if not is_local(url):
        Folder(url).require_create()


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def absolute(url: str) -> str:
    """Return the same place for every process: local paths become absolute and expanded."""
    if not is_local(url):
        return url.rstrip("/")
    return str(Path(os.path.expanduser(url.removeprefix("file://"))).resolve())


def path_of(uri: str) -> str:
    """Return the local folder of a file: URI, in which libraries quote all but letters and digits of ASCII."""
    return unquote(uri.removeprefix("file://")).rstrip("/")


def _size_inside(place: str, path: str) -> int:
    """Return the bytes of a regular file. Raises StorageUnsafe for other kinds, and outside `place`; OSError."""
    real = os.path.realpath(path)
    if not real.startswith(f"{os.path.realpath(place)}{os.sep}"):
        raise StorageUnsafe(f"{path} is a link that leads out of {place}: copy the file itself")
    status = os.stat(real)
    if not stat.S_ISREG(status.st_mode):
        raise StorageUnsafe(f"{path} is not a regular file: copy the file itself")
    return status.st_size


def _write_local(path: Path, data: bytes, exclusive: bool = False, mode: int = 0o644) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which would say that `path` is there
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
    finally:
        Path(temporary).unlink(missing_ok=True)


def _link(temporary: str, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StorageUnsafe(
            f"{path.parent} is on a file system without hard links, where two writers could undo each "
            "other: choose a folder on another"
        ) from error


def _exchange_local(path: Path, old: bytes | None, new: bytes) -> bool:
    with _locked(path.parent):
        if (path.read_bytes() if path.is_file() else None) != old:
            return False
        _write_local(path, new)
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keep other processes that use this lock out, until the block or this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _exchange_remote(fs: Any, path: str, old: bytes, new: bytes) -> bool:
    """On stores other than S3 a write between the comparison and ours is lost."""
    if "s3" not in fs.protocol:
        same = bytes(fs.cat_file(path)) == old
        if same:
            fs.pipe_file(path, new)
        return same
    bucket, key, _ = fs.split_path(path)
    place = {"Bucket": bucket, "Key": key, **fs.req_kw}
    try:
        etag = fs.call_s3("head_object", **place)["ETag"]
        if bytes(fs.cat_file(path)) != old:
            return False
        _patiently()(fs.call_s3, "put_object", Body=new, IfMatch=etag, **place)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if _http_status(error) == HTTPStatus.PRECONDITION_FAILED:
            return False
        raise


def _patiently() -> tenacity.Retrying:
    """Call again what S3 answers with 409 because another writer is at the same file."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _http_status(error) == HTTPStatus.CONFLICT),
        stop=tenacity.stop_after_attempt(CREATE_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        reraise=True,
    )


def _create_remote(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file unless it is there, which S3 answers with 412."""
    try:
        _patiently()(
            fs.pipe_file, path, data, mode="create", **(ONE_PUT if "s3" in fs.protocol else {})
        )
    except OSError as error:
        # s3fs knows it by a field of AWS's answer that other servers leave out
        if _http_status(error) == HTTPStatus.PRECONDITION_FAILED:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        raise


def _is_empty_s3(fs: Any, root: str) -> bool:
    bucket, key, _ = fs.split_path(root)
    prefix = f"{key}/" if key else ""
    page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=2, **fs.req_kw)
    keys = {entry["Key"] for entry in page.get("Contents", ())}
    return keys <= {prefix}  # the folder's own mark


def _http_status(error: BaseException) -> int | None:
    """Of the answer that s3fs has made an OSError of; None for all other errors."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return None
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
