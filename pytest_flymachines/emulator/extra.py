"""The packages that the emulator needs and a plain installation does not bring."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["missing"]

#: What the extra `local` brings, by the names that are imported. Some are imported late, by what a
#: test may never ask for, so a look at all of them is better than an error in the middle of it.
PACKAGES = ("starlette", "uvicorn", "trustme", "h2", "dns", "cryptography")


def missing() -> str:
    """What is not installed and how to install it; empty if all is there. Imports none of them."""
    names = [name for name in PACKAGES if find_spec(name) is None]
    if not names:
        return ""
    return (
        f"it needs the extra `local`, and there is no {', '.join(names)}: "
        "pip install 'pytest-flymachines[local]'"
    )
