"""Which handler answers which request, and what an exception becomes."""

from __future__ import annotations

import hashlib
import hmac
import os
import traceback
from collections.abc import Callable

from . import VERSION
from .exec import ExecApi
from .files import FileApi
from .log import log, tail
from .messages import Request, Response
from .trees import TreeApi
from .wire import BadRequest, NotHere, Refused, os_error
from .workspaces import WorkspaceApi

CAPABILITIES = ["exec", "files", "trees", "checkpoints", "workspaces", "terminal", "forward"]

Handler = Callable[..., Response]


class App:
    """The agent's HTTP interface.

    `POST /v1/apps/{app}/machines/{id}/exec` is the Machines API's; everything else of ours is
    below `/v1/apps/{app}/machines/{id}/agent/`. App and machine id are not looked at: there is
    one machine here.
    """

    def __init__(
        self,
        *,
        base: bytes,
        token_sha256: str | None,
        exec_api: ExecApi,
        files: FileApi,
        trees: TreeApi,
        workspaces: WorkspaceApi,
    ) -> None:
        self._base = base
        self._token_sha256 = token_sha256
        # the parts of a path after `agent`, "*" for a name
        self._routes: dict[tuple[str, ...], Handler] = {
            ("GET", "health"): self.health,
            ("GET", "log"): self.log,
            ("POST", "processes", "*", "poll"): exec_api.poll,
            ("POST", "processes", "*", "stdin"): exec_api.stdin,
            ("POST", "processes", "*", "signal"): exec_api.signal,
            ("POST", "processes", "*", "resize"): exec_api.resize,
            ("DELETE", "processes", "*"): exec_api.forget,
            ("PUT", "files"): files.write,
            ("POST", "files", "read"): files.read,
            ("POST", "files", "append"): files.append,
            ("POST", "files", "stat"): files.stat,
            ("POST", "files", "listdir"): files.listdir,
            ("POST", "files", "walk"): files.walk,
            ("POST", "files", "mkdir"): files.mkdir,
            ("POST", "files", "remove"): files.remove,
            ("POST", "files", "rename"): files.rename,
            ("POST", "files", "chmod"): files.chmod,
            ("POST", "files", "symlink"): files.symlink,
            ("POST", "files", "touch"): files.touch,
            ("PUT", "trees"): trees.put,
            ("POST", "trees", "get"): trees.get,
            ("POST", "checkpoints"): workspaces.save,
            ("GET", "checkpoints"): workspaces.list,
            ("POST", "checkpoints", "*", "restore"): workspaces.restore,
            ("DELETE", "checkpoints", "*"): workspaces.delete,
            ("POST", "workspaces"): workspaces.make,
            ("DELETE", "workspaces", "*"): workspaces.drop,
        }
        self._exec = exec_api.start

    def handle(self, request: Request) -> Response:
        """The answer to a request, whatever happens."""
        try:
            if refusal := self.refusal(request):
                return refusal
            handler, names = self._route(request)
            return handler(request, *names)
        except Exception as error:  # noqa: BLE001 - the client is told, the log has it
            return failure(request, error)

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request without the right token."""
        if self._allows(request.headers.get(b"authorization", b"")):
            return None
        error = {"error": "the bearer token is missing or wrong"}
        return Response(error, 401, {"www-authenticate": "Bearer"})

    def _allows(self, authorization: bytes) -> bool:
        if self._token_sha256 is None:
            return True
        scheme, _, token = authorization.partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        return hmac.compare_digest(digest, self._token_sha256) and scheme.lower() == b"bearer"

    def _route(self, request: Request) -> tuple[Handler, list[str]]:
        match request.path:
            case ["v1", "apps", _, "machines", _, "exec"] if request.method == "POST":
                return self._exec, []
            case ["v1", "apps", _, "machines", _, "agent", *rest]:
                for route, handler in self._routes.items():
                    names = _match(route, (request.method, *rest))
                    if names is not None:
                        return handler, names
        raise NotHere(f"no {request.method} /{'/'.join(request.path)} here; this is cook-agent")

    def health(self, request: Request) -> Response:
        """`GET .../agent/health`."""
        return Response(
            {
                "name": "pytest-flymachines cook-agent",
                "version": VERSION,
                "pid": os.getpid(),
                "base": self._base.decode("utf-8", "backslashreplace"),
                "capabilities": CAPABILITIES,
            }
        )

    def log(self, request: Request) -> Response:
        """`GET .../agent/log`."""
        return Response({"log": tail()})


def _match(route: tuple[str, ...], wanted: tuple[str, ...]) -> list[str] | None:
    """What stands in the places of `*`, if the rest is equal."""
    if len(route) != len(wanted):
        return None
    pairs = list(zip(route, wanted, strict=True))
    return [b for a, b in pairs if a == "*"] if all(a in ("*", b) for a, b in pairs) else None


def failure(request: Request, error: Exception) -> Response:
    """The answer to a request that failed."""
    if isinstance(error, BadRequest | NotHere | Refused):
        return Response({"error": str(error)}, error.status)
    if isinstance(error, OSError):
        status, body = os_error(error)
        return Response(body, status)
    trace = "".join(traceback.format_exception(error))
    log(f"{request.method} /{'/'.join(request.path)}\n{trace}")
    return Response({"error": "the agent failed; its log says more"}, 500)
