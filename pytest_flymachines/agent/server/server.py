"""Everything of the agent put together, and the life of one connection."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback

import h11

from .app import App, failure
from .exec import ExecApi
from .files import FileApi
from .forward import connect, forwarded_port
from .http import Connection
from .log import log
from .messages import Request
from .paths import Paths
from .processes import Processes
from .reactor import Reactor
from .sessions import Sessions
from .trees import TreeApi
from .workspaces import WorkspaceApi


class Server:
    """Answers on connections; each `serve` runs in a thread of its own."""

    def __init__(
        self, reactor: Reactor, base: bytes, state: bytes, token_sha256: str | None
    ) -> None:
        paths = Paths(base)
        self._processes = Processes(reactor, os.fsdecode(state))
        self._sessions = Sessions(self._processes, paths)
        self._app = App(
            base=base,
            token_sha256=token_sha256,
            exec_api=ExecApi(self._processes, paths),
            files=FileApi(paths),
            trees=TreeApi(paths),
            workspaces=WorkspaceApi(paths, state),
        )

    def serve(self, sock: socket.socket) -> None:
        """Serve one connection to its end."""
        with sock:
            connection = Connection(sock)
            try:
                connection.serve(self._app.handle, self._upgrade)
            except h11.RemoteProtocolError as error:
                connection.refuse(error.error_status_hint, f"bad request: {error}")
            except OSError:
                pass  # the client has gone, or was silent for too long
            except Exception:  # noqa: BLE001 - the log has it, the others go on
                log(f"connection\n{traceback.format_exc()}")

    def _upgrade(
        self, connection: Connection, request: Request, head: h11.Request, trailing: bytes
    ) -> None:
        """Serve a WebSocket: a forward, or else, on any path, cook-agent's terminals."""
        # few connections need it, and it would cost every start 30 ms
        from .relay import relay
        from .terminals import Terminals
        from .websocket import accept

        with contextlib.ExitStack() as stack:
            try:
                if refusal := self._app.refusal(request):
                    connection.answer(request, refusal)
                    return
                stream = None
                if port := forwarded_port(request.path):
                    own_address = connection.sock.getsockname()[0]
                    stream = stack.enter_context(connect(port, own_address))
                websocket = accept(connection.sock, head, trailing)
            except Exception as error:  # noqa: BLE001 - the client is told, the log has it
                connection.answer(request, failure(request, error))
                return
            if stream:
                relay(websocket, stream)
            else:
                Terminals(websocket, self._sessions).run()

    def close(self) -> None:
        """Kill all processes."""
        self._processes.kill_all()
