"""What a terminal sends for each key, as xterm does."""

from __future__ import annotations

__all__ = ["key_bytes"]

# https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
_KEYS = {
    "enter": b"\r",
    "return": b"\r",
    "tab": b"\t",
    "shift-tab": b"\x1b[Z",
    "space": b" ",
    "escape": b"\x1b",
    "esc": b"\x1b",
    "backspace": b"\x7f",
    "delete": b"\x1b[3~",
    "insert": b"\x1b[2~",
    "up": b"\x1b[A",
    "down": b"\x1b[B",
    "right": b"\x1b[C",
    "left": b"\x1b[D",
    "home": b"\x1b[H",
    "end": b"\x1b[F",
    "pageup": b"\x1b[5~",
    "pagedown": b"\x1b[6~",
    "f1": b"\x1bOP",
    "f2": b"\x1bOQ",
    "f3": b"\x1bOR",
    "f4": b"\x1bOS",
    "f5": b"\x1b[15~",
    "f6": b"\x1b[17~",
    "f7": b"\x1b[18~",
    "f8": b"\x1b[19~",
    "f9": b"\x1b[20~",
    "f10": b"\x1b[21~",
    "f11": b"\x1b[23~",
    "f12": b"\x1b[24~",
}


def key_bytes(key: str) -> bytes:
    """Bytes of a key: a name, `ctrl-x`, `alt-x`, or a single character.

    Raises:
        ValueError: There is no such key.
    """
    if not isinstance(key, str):
        raise TypeError(f"key={key!r}: expected the name of a key, or a character, as str")
    name = key.lower()
    if name in _KEYS:
        return _KEYS[name]
    if name.startswith("alt-") and len(name) > 4:
        return b"\x1b" + key_bytes(key[4:])
    if name.startswith("ctrl-") and len(name) == 6 and "@" <= name[5].upper() <= "_":
        return bytes([ord(name[5].upper()) & 0x1F])
    if len(key) == 1:
        return key.encode()
    raise ValueError(
        f"{key!r} is no key: expected one character, ctrl-X, alt-X or one of {', '.join(_KEYS)}"
    )
