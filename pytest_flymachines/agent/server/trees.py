"""Trees over HTTP, as pax tar streams."""

from __future__ import annotations

import os
import stat

from .messages import Request, Response
from .paths import Paths
from .wire import BadRequest, field


class TreeApi:
    """The handlers; what they need is imported late, because it costs the start 20 ms."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def put(self, request: Request) -> Response:
        """`PUT .../agent/trees?path=`: the body is unpacked beside, checked, then put in place."""
        from .pax import BadTar
        from .unpacking import unpack_tree

        target = self._paths.resolve(request.query.get("path", b""))
        try:
            return Response({"entries": unpack_tree(target, request.pieces())})
        except BadTar as error:
            raise BadRequest(str(error)) from error
        except (ValueError, OverflowError) as error:  # a NUL in a name, a date beyond all dates
            raise BadRequest(f"the tar stream has a member that cannot be: {error}") from error

    def get(self, request: Request) -> Response:
        """`POST .../agent/trees/get`: `{"path", "exclude"}`."""
        from .packing import excluder, pack, pack_file, scan

        body = request.json()
        patterns = field(body, "exclude", list, [])
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise BadRequest(f"exclude={patterns!r}: expected a list of patterns")
        path = self._paths.of(body)
        if stat.S_ISREG(os.stat(path).st_mode):
            size, pieces = pack_file(path)
            return Response(pieces, size=size)
        return Response(pack(scan(path, excluder(patterns)), links=True))
