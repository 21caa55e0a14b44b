"""The agent as one file: a zipapp that any python3 >= 3.10 runs."""

from __future__ import annotations

import functools
import io
import zipfile
from importlib import resources

__all__ = ["build"]

# h11 and wsproto are the installed ones; both still run on 3.10.
_PACKAGES = {
    "cook_agent": "pytest_flymachines.agent.server",
    "h11": "h11",
    "wsproto": "wsproto",
}
_MAIN = b"from cook_agent.main import main\n\nmain()\n"
# The first moment that a zip file can tell.
_DATE = (1980, 1, 1, 0, 0, 0)


@functools.cache
def build() -> bytes:
    """The zipapp; the same bytes for the same sources, about 90 KB."""
    sources = {"__main__.py": _MAIN}
    for name, package in _PACKAGES.items():
        for file in resources.files(package).iterdir():
            if file.name.endswith(".py") and file.name != "__main__.py":
                sources[f"{name}/{file.name}"] = file.read_bytes()
    return _zip(sources)


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
