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

__all__ = ["Store"]

Record = App | Machine | Volume

KINDS: dict[str, type[Record]] = {"app": App, "machine": Machine, "volume": Volume}


class Store:
    """The apps, machines and volumes of one emulator."""

    def __init__(self, file: Path | None = None) -> None:
        """Open.

        Args:
            file: SQLite file to read and write; None keeps everything in memory.
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
        """Write what changed since the last time, in one transaction."""
        if not self._dirty or self._database is None:
            return
        changed, self._dirty = self._dirty, {}
        gone = [key for key, record in changed.items() if record is None]
        kept = [(*key, encode(record)) for key, record in changed.items() if record is not None]
        with self._database:
            self._database.executemany("DELETE FROM record WHERE kind=? AND key=?", gone)
            self._database.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", kept)

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

        self._database = database = sqlite3.connect(file, check_same_thread=False)
        file.chmod(0o600)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS record"
            "(kind TEXT, key TEXT, body BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )
        for kind, key, body in database.execute("SELECT kind, key, body FROM record"):
            self._table(kind)[key] = msgspec.json.decode(
                body, type=KINDS[kind], dec_hook=decode_hook
            )


def _name(record: Record) -> tuple[str, str]:
    if isinstance(record, App):
        return "app", record.name
    return type(record).__name__.lower(), record.id
