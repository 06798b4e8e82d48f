"""Any place with files: a local folder or an fsspec URL such as s3://bucket/prefix.

One thin value, `Folder`, so that no other module builds paths or file systems. Credentials and
endpoints come from the usual AWS_* variables.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (libraries here have no complete types)

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from model_store.errors import StorageUnreachable


@dataclass(frozen=True)
class Folder:
    """A folder at `url`. Raises StorageUnreachable (never FileNotFound) for an unknown protocol."""

    url: str
    fs: AbstractFileSystem = field(init=False, repr=False, compare=False)
    root: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        options: dict[str, Any] = {} if is_local(self.url) else {"use_listings_cache": False}
        try:
            fs, root = fsspec.core.url_to_fs(self.url, **options)
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

    def write(self, relative: str, data: bytes) -> None:
        """Replace a file in one step: readers see the old bytes or the new ones, never a part."""
        path = self.path(relative)
        if is_local(self.url):
            _write_local(Path(path), data)
        else:
            self.fs.pipe_file(path, data)

    def remove(self, relative: str) -> None:
        """Remove a file or folder with all below it."""
        if self.exists(relative):
            self.fs.rm(self.path(relative), recursive=True)


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def absolute(url: str) -> str:
    """The same place for every process: local paths become absolute and expanded."""
    if not is_local(url):
        return url.rstrip("/")
    return str(Path(url.removeprefix("file://")).expanduser().resolve())


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
