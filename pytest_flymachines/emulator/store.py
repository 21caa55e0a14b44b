"""All records, in memory and, with a state directory, in SQLite.

What was answered is in the file: records that a request changed are written before its
answer goes out. SQLite's write-ahead log keeps them through the death of the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pytest_flymachines.emulator.config import decode_hook, encode
from pytest_flymachines.emulator.model import App, Machine, Volume

if TYPE_CHECKING:
    import sqlite3

__all__ = ["StateError", "Store"]

Record = App | Machine | Volume

KINDS: dict[str, type[Record]] = {"app": App, "machine": Machine, "volume": Volume}
#: What the file's header says: whose it is, and in which form.
APPLICATION = 0x666C7974
FORM = 1


class StateError(Exception):
    """The file cannot be read or written; the text says what to do."""


class Store:
    """The apps, machines and volumes of one emulator."""

    def __init__(self, file: Path | None = None) -> None:
        """Open.

        Args:
            file: SQLite file to read and write; None keeps everything in memory.

        Raises:
            StateError: It is no file of ours, damaged, or cannot be written.
        """
        self.apps: dict[str, App] = {}
        self.machines: dict[str, Machine] = {}
        self.volumes: dict[str, Volume] = {}
        self._dirty: dict[tuple[str, str], Record | None] = {}
        self._database: sqlite3.Connection | None = None
        if file is not None:
            self._open(file)

    def machines_of(self, app: str) -> Iterator[Machine]:
        """The machines of an app, oldest first, destroyed ones that are still kept included."""
        return (machine for machine in self.machines.values() if machine.app == app)

    def volumes_of(self, app: str) -> Iterator[Volume]:
        """The volumes of an app."""
        return (volume for volume in self.volumes.values() if volume.app == app)

    def put(self, record: Record) -> None:
        """Keep a new or changed record."""
        kind, key = _name(record)
        self._table(kind)[key] = record
        if self._database is not None:
            self._dirty[kind, key] = record

    def drop(self, record: Record) -> None:
        """Forget a record."""
        kind, key = _name(record)
        self._table(kind).pop(key, None)
        if self._database is not None:
            self._dirty[kind, key] = None

    def flush(self) -> None:
        """Write what changed since the last time, in one transaction.

        Raises:
            StateError: It cannot be written, as on a full disk; the next time tries again.
        """
        if not self._dirty or self._database is None:
            return
        changed, self._dirty = self._dirty, {}
        gone = [key for key, record in changed.items() if record is None]
        kept = [(*key, encode(record)) for key, record in changed.items() if record is not None]
        database = self._database
        try:
            with database:
                database.executemany("DELETE FROM record WHERE kind=? AND key=?", gone)
                database.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", kept)
        except database.Error as error:
            self._dirty = changed | self._dirty
            raise StateError(f"state cannot be written: {error}") from error

    def close(self) -> None:
        """Write and close."""
        if self._database is not None:
            self.flush()
            self._database.close()
            self._database = None

    def _table(self, kind: str) -> dict[str, Record]:
        return getattr(self, f"{kind}s")  # type: ignore[no-any-return]  # one of three dicts

    def _open(self, file: Path) -> None:
        import sqlite3  # costs start-up time, and most emulators keep no state

        try:
            self._database = database = sqlite3.connect(file, check_same_thread=False)
            # Nothing is written to what cannot be used.
            if _ours(database, file):
                for kind, key, body in database.execute("SELECT kind, key, body FROM record"):
                    self._table(kind)[key] = msgspec.json.decode(
                        body, type=KINDS[kind], dec_hook=decode_hook
                    )
            file.chmod(0o600)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            with database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS record"
                    "(kind TEXT, key TEXT, body BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
                )
                database.execute(f"PRAGMA application_id={APPLICATION}")
                database.execute(f"PRAGMA user_version={FORM}")
        except (sqlite3.OperationalError, OSError) as error:
            why = f"{file}: {error}; it and its directory must be writable, with room on the disk"
            raise self._refused(why) from error
        except (sqlite3.DatabaseError, msgspec.MsgspecError, KeyError) as error:
            why = f"{file} is damaged ({error}); {_INSTEAD}"
            raise self._refused(why) from error
        except StateError as error:
            raise self._refused(str(error)) from None

    def _refused(self, why: str) -> StateError:
        if self._database is not None:
            self._database.close()
            self._database = None
        return StateError(why)


_INSTEAD = "move it away to begin with nothing, or name another directory"


def _ours(database: sqlite3.Connection, file: Path) -> bool:
    """Whether a file has records of ours; False if it is new.

    Raises:
        StateError: It is something else.
    """
    [application] = database.execute("PRAGMA application_id").fetchone()
    [form] = database.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    # Earlier ones had no header of their own.
    if application not in (0, APPLICATION) or (not application and tables - {"record"}):
        raise StateError(f"{file} is a database of another program; {_INSTEAD}")
    if application and form > FORM:
        raise StateError(
            f"{file} was written by a newer version of this emulator (form {form}, this one knows "
            f"{FORM}): upgrade pytest-flymachines, or {_INSTEAD}"
        )
    [found] = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StateError(f"{file} is damaged ({found}); {_INSTEAD}")
    return bool(tables)


def _name(record: Record) -> tuple[str, str]:
    if isinstance(record, App):
        return "app", record.name
    return type(record).__name__.lower(), record.id
