"""Which values count as secret: what is short or stands everywhere would take all along."""

from __future__ import annotations

from pytest_flymachines.errors import SettingsError

__all__ = ["SHORTEST", "SHORTEST_NAMED", "check_named", "is_common"]

#: Bytes that a value must have that is taken for secret by the name of its variable.
SHORTEST = 8
#: Bytes that a value must have that the user names.
SHORTEST_NAMED = 4

# fewer of one character are a mask
_LONG = 20
_WORDS = """
    anonymous changeit changeme changethis dummy development disabled enabled example false
    github insecure localhost main master none null optional password postgres postgresql
    production required rootpass rootroot secret staging temporary test testing
    testpassword testtest token true undefined username
"""
_COMMON = frozenset(_WORDS.split())


def is_common(value: str) -> bool:
    """Whether everybody uses a value, so that to know it is to know nothing."""
    value = value.strip()
    return value.lower() in _COMMON or (len(set(value)) == 1 and len(value) < _LONG)


def check_named(entry: str, value: str) -> None:
    """Refuse a value that the user names and that would take everything along.

    Args:
        entry: What the user wrote: a variable, or the value.
        value: The value; an empty one is nothing.

    Raises:
        SettingsError: It is too short, or too common.
    """
    size = len(value.strip().encode("utf-8", "surrogateescape"))
    if 0 < size < SHORTEST_NAMED:
        why = f"has fewer than {SHORTEST_NAMED} characters"
    elif is_common(value):
        why = "is a word that everybody uses"
    else:
        return
    raise SettingsError(
        f"fly_scrub: {entry!r} cannot be kept out of cassettes, because "
        f"{'it' if entry == value else 'its value'} {why}, and something else would be put "
        "wherever it stands. Name something longer that has the secret in it, or leave it out."
    )
