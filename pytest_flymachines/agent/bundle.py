"""The agent as one file: a zipapp that any python3 >= 3.10 runs."""

from __future__ import annotations

import functools
import io
import marshal
import zipfile
from collections.abc import Iterator
from importlib import resources
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

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
# "Hash-based, and nobody compares the hash": https://peps.python.org/pep-0552/
_UNCHECKED = (1).to_bytes(4, "little") + bytes(8)


@functools.cache
def build(*, compiled: bool = False) -> bytes:
    """The zipapp: about 100 KB.

    Args:
        compiled: Beside each source comes what this Python compiles it to, in all about 320 KB.
            One of the same version starts in half the time; another one sees that the code is
            not for it, and takes the source.
    """
    files = {"__main__.py": _MAIN}
    for name, file in _sources():
        files[name] = file.read_bytes()
        if compiled:
            files[f"{name}c"] = _code(name, file)
    return _zip(files)


def _sources() -> Iterator[tuple[str, Path]]:
    for name, package in _PACKAGES.items():
        with resources.as_file(resources.files(package)) as directory:
            for file in directory.glob("*.py"):
                if file.name != "__main__.py":
                    yield f"{name}/{file.name}", file


def _code(name: str, file: Path) -> bytes:
    """A .pyc, from what `__pycache__` has if that is fresh."""
    code = SourceFileLoader(name, str(file)).get_code(name)
    assert code is not None
    return MAGIC_NUMBER + _UNCHECKED + marshal.dumps(_moved(code, name))


def _moved(code: CodeType, filename: str) -> CodeType:
    """The same, with no path of this computer in it."""
    constants = (_moved(c, filename) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=filename, co_consts=tuple(constants))


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
