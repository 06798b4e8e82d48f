"""What a peer's folder says of it: peer.toml, and request.py where the framework does not take a raw JPEG.

read_peer(folder) -> Peer; peer.request(jpeg, config) -> path, headers, body; peer.detections(answer, config)
"""

from __future__ import annotations

import importlib.util
import json
import tomllib
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

RAW = {"content-type": "image/jpeg"}
Request = tuple[str, dict[str, str], bytes]  # path, headers, body


class Config(BaseModel):
    """One way to run it that its documentation would advise. `path` takes the JPEG as it is, past request.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    env: dict[str, str] = {}
    path: str | None = None


class Peer(BaseModel):
    """`command`: its first word is found in the environment's bin. `documentation`: whose advice is followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    documentation: str = Field(pattern=r"^https://")
    command: list[str] = Field(min_length=1)
    path: str = Field(pattern=r"^/")
    headers: dict[str, str] = RAW
    configs: list[Config] = Field(min_length=1)

    def request(self, jpeg: bytes, config: Config | None = None) -> Request:
        """Of a POST."""
        if config and config.path:
            return config.path, self.headers, jpeg
        return self._own.request(jpeg) if self._own else (self.path, self.headers, jpeg)

    def detections(self, answer: bytes, config: Config | None = None) -> list[dict[str, Any]]:
        """Of the body of an answer."""
        if self._own and not (config and config.path):
            return self._own.detections(answer)
        return json.loads(answer)["detections"]

    @cached_property
    def _own(self) -> ModuleType | None:
        file = self.folder / "request.py"
        if not file.exists():
            return None
        found = importlib.util.spec_from_file_location(f"request_of_{self.folder.name}", file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module


def read_peer(folder: Path) -> Peer:
    """Raises ValidationError when peer.toml says too little, or what nobody reads."""
    return Peer(folder=folder, **tomllib.loads((folder / "peer.toml").read_text()))
