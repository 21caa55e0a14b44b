"""Checkpoints of a directory, and private copies of them."""

from __future__ import annotations

import functools
import os
import stat
import threading
from typing import TYPE_CHECKING

from .messages import Request, Response
from .paths import Paths
from .wire import BadRequest, NotHere, Refused, field, pack

if TYPE_CHECKING:
    from .spares import Spares


class WorkspaceApi:
    """The handlers; `copying` is imported late, because few runs need it."""

    def __init__(self, paths: Paths, state: bytes) -> None:
        self._paths = paths
        self._checkpoints = os.path.join(state, b"checkpoints")
        self._workspaces = os.path.join(state, b"workspaces")
        self._state = state
        self._lock = threading.Lock()
        self._may_overlay = True
        self._overlays: set[bytes] = set()
        # replaced or deleted while an overlay might still show them
        self._retired: list[bytes] = []

    def save(self, request: Request) -> Response:
        """`POST .../agent/checkpoints`: `{"name", "path"}` keeps a copy; the base by default."""
        from .copying import copy_tree
        from .names import new_directory

        body = request.json()
        target = self._checkpoint(field(body, "name", str, ""))
        source = self._paths.of(body) if "path" in body else self._paths.base
        os.makedirs(self._checkpoints, exist_ok=True)
        stage = new_directory(self._checkpoints)
        copied = False
        try:
            copy_tree(source, stage)
            with self._lock:
                if os.path.lexists(target):
                    self._retire(target)
                os.rename(stage, target)
            copied = True
        finally:
            if not copied:
                _remove(stage)
        return Response({"name": os.fsdecode(os.path.basename(target))})

    def list(self, request: Request) -> Response:
        """`GET .../agent/checkpoints`."""
        names = os.listdir(self._checkpoints) if os.path.isdir(self._checkpoints) else []
        shown = sorted(name for name in names if not name.startswith(b"."))
        return Response({"checkpoints": [pack(name) for name in shown]})

    def restore(self, request: Request, name: str) -> Response:
        """`POST .../agent/checkpoints/{name}/restore`: `{"path"}`, the base by default."""
        from .copying import replace_content

        body = request.json()
        target = self._paths.of(body) if "path" in body else self._paths.base
        replace_content(target, self._existing(name))
        return Response({})

    def delete(self, request: Request, name: str) -> Response:
        """`DELETE .../agent/checkpoints/{name}`."""
        with self._lock:
            self._retire(self._existing(name))
        return Response({})

    @functools.cached_property
    def _spares(self) -> Spares:
        from .spares import Spares

        return Spares(os.path.join(self._state, b"spares"))

    def _retire(self, checkpoint: bytes) -> None:
        """Remove a checkpoint now, or once the overlays are gone."""
        from .names import new_directory

        self._spares.forget(checkpoint)

        retired = new_directory(self._checkpoints)
        os.rename(checkpoint, retired)
        self._retired.append(retired)
        self._remove_retired()

    def _remove_retired(self) -> None:
        while self._retired and not self._overlays:
            _remove(self._retired.pop())

    def make(self, request: Request) -> Response:
        """`POST .../agent/workspaces`: `{"checkpoint"}`; a private copy and its path."""
        checkpoint = self._existing(field(request.json(), "checkpoint", str, ""))
        os.makedirs(self._workspaces, exist_ok=True)
        path = self._new_workspace()
        os.chmod(path, stat.S_IMODE(os.stat(checkpoint).st_mode))
        try:
            method = self._fill(checkpoint, path)
        except BaseException:
            self._discard(path)
            raise
        return Response({"path": pack(path), "method": method})

    def drop(self, request: Request, name: str) -> Response:
        """`DELETE .../agent/workspaces/{name}`, the last part of the path that `make` gave."""
        path = os.path.join(self._workspaces, os.fsencode(name))
        if not _is_name(name) or not os.path.isdir(path):
            raise NotHere(f"no workspace {name!r}")
        self._discard(path)
        return Response({})

    def _checkpoint(self, name: str) -> bytes:
        if not _is_name(name):
            raise BadRequest(f"name={name!r}: expected a file name that does not start with a dot")
        return os.path.join(self._checkpoints, name.encode())

    def _existing(self, name: str) -> bytes:
        path = self._checkpoint(name)
        if not os.path.isdir(path):
            raise NotHere(f"no checkpoint {name!r}")
        return path

    def _new_workspace(self) -> bytes:
        with self._lock:
            number = 1
            while True:
                path = os.path.join(self._workspaces, b"w%d" % number)
                try:
                    os.mkdir(path)
                except FileExistsError:
                    number += 1
                else:
                    return path

    def _fill(self, checkpoint: bytes, path: bytes) -> str:
        from .copying import can_clone

        method = "clone" if can_clone(self._workspaces) else "copy"
        if method == "copy" and self._may_overlay and self._overlay(checkpoint, path):
            return "overlay"
        self._spares.fill(checkpoint, path)
        return method

    def _overlay(self, checkpoint: bytes, path: bytes) -> bool:
        from .copying import mount_overlay

        upper, work = (os.path.join(_hidden(path), part) for part in (b"upper", b"work"))
        os.makedirs(upper)
        os.mkdir(work)
        with self._lock:
            self._may_overlay = mount_overlay(checkpoint, upper, work, path)
            if self._may_overlay:
                self._overlays.add(path)
                return True
        _remove(_hidden(path))
        return False

    def _discard(self, path: bytes) -> None:
        from .copying import unmount

        unmount(path)
        if os.path.ismount(path):
            raise Refused(f"{os.fsdecode(path)} cannot be unmounted")
        if os.path.lexists(_hidden(path)):
            self._spares.discard(_hidden(path))
        self._spares.discard(path)
        with self._lock:
            self._overlays.discard(path)
            self._remove_retired()


def _is_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def _hidden(path: bytes) -> bytes:
    """Where the changes of an overlay are kept."""
    return os.path.join(os.path.dirname(path), b"." + os.path.basename(path))


def _remove(path: bytes) -> None:
    import shutil

    shutil.rmtree(path)
