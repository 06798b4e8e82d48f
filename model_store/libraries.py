"""Report the versions of the libraries that affect results, and check that none is installed twice.

library_versions() -> {"numpy": "2.4.6", …}, in every row of the table `runs`; pyproject.toml limits each to the minor
version that was compared with the oracles (docs/decisions/0021).
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from model_store.errors import ModelRefused

BUILDS = {
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
"""Packages that install the same Python module, by that module. The last one that pip installs overwrites the files
of the others, so it is undefined which one runs."""
LIBRARIES = ("av", "numpy", "pillow", "simplejpeg", "torch", *BUILDS["cv2"], *BUILDS["onnxruntime"])


def resight_version() -> str:
    """Return the version of Resight, or "uninstalled" where it runs from an uploaded working directory."""
    return installed_version("resight") or "uninstalled"


@cache
def library_versions() -> dict[str, str]:
    """Return the version of each library that is installed in this process's environment."""
    return {name: number for name in LIBRARIES if (number := installed_version(name))}


def installed_version(package: str) -> str:
    """Return the version of a package, or "" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def require_single_builds() -> None:
    """Raise ModelRefused if two packages have installed the same module over each other."""
    for module, packages in BUILDS.items():
        installed = [name for name in packages if name in library_versions()]
        if len(installed) > 1:
            raise ModelRefused(
                f"{' and '.join(installed)} are installed over each other as the module '{module}'; "
                f"uninstall {', '.join(installed)}, then install Resight again"
            )
