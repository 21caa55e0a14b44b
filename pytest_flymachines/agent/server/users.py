"""Whom a command runs as, and the environment that this user expects."""

from __future__ import annotations

import os
import pwd
from typing import NamedTuple

from .wire import NotHere, Refused


class User(NamedTuple):
    """A user of the machine; `name` and `home` are those of its passwd entry."""

    uid: int
    gid: int
    groups: list[int]
    name: str
    home: str


def find_user(who: str) -> User:
    """A user by name or number; a number without passwd entry is its own group.

    Raises:
        NotHere: There is no user of this name.
        Refused: The agent is not root and would have to become another.
    """
    try:
        entry = pwd.getpwuid(int(who)) if who.isdecimal() else pwd.getpwnam(who)
    except KeyError:
        if not who.isdecimal():
            raise NotHere(f"user={who!r}: the machine has no user of this name") from None
        user = User(int(who), int(who), [], who, "/")
    else:
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        user = User(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)
    if os.geteuid() not in (0, user.uid):
        raise Refused(f"the agent runs as uid {os.geteuid()} and cannot become {who!r}")
    return user


def environment(user: User | None, changes: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The agent's own environment, made the user's, with `changes` on top."""
    env = dict(os.environb)
    if user:
        name, home = os.fsencode(user.name), os.fsencode(user.home)
        env.update({b"HOME": home, b"USER": name, b"LOGNAME": name})
    elif env.get(b"HOME", b"/") == b"/":
        # Fly's exec may come with HOME=/ for root
        env[b"HOME"] = _own_home()
    return env | changes


def _own_home() -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return b"/"
