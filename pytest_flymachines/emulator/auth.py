"""Who may call: one token for everything, and deploy tokens for one app each.

Token forms: `tokens/tokens.go` in superfly/fly-go.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass

from starlette.requests import Request

from pytest_flymachines.emulator.answers import Problem

__all__ = ["Access", "Hosts", "Tokens"]

SCHEMES = re.compile(r"^(?:(?:Bearer|FlyV1)\s+)+", re.IGNORECASE)
LOOPBACK_HOST = re.compile(
    r"^(localhost|[a-z0-9-]+\.localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?$", re.IGNORECASE
)
PORT = re.compile(r":\d{1,5}$")
ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")


@dataclass(frozen=True)
class Access:
    """What a token allows; `app` None means everything."""

    app: str | None = None


class Tokens:
    """The tokens of one emulator."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._deploy: dict[str, str] = {}

    def deploy_token(self, app: str) -> str:
        """Make a token that is good for one app."""
        token = f"emu-{secrets.token_hex(16)}"
        self._deploy[token] = app
        return token

    def access(self, request: Request, *, control: bool = False) -> Access:
        """What the request's token allows; `control` takes only the token of this emulator.

        Raises:
            Problem: 401 for none, or an unknown one.
        """
        given = SCHEMES.sub("", request.headers.get("authorization", "")).strip()
        parts = [given, *(part.strip() for part in given.split(","))]
        allowed: Access | None = None
        # Every comparison is made, so that time tells nothing.
        deploy = () if control else self._deploy.items()
        for token, app in ((self.token, None), *deploy):
            for part in parts:
                if hmac.compare_digest(part.encode(), token.encode()):
                    allowed = Access(app)
        if allowed is None:
            raise Problem(401, "Authenticate: token validation error")
        return allowed


@dataclass(frozen=True)
class Hosts:
    """Which `Host` headers are answered: none that a web page's DNS trick could send.

    Such a trick needs a name, so where others may reach the server every address will do.

    Attributes:
        beyond_loopback: The server listens for other computers, too.
        names: Names that were allowed by the user.
    """

    beyond_loopback: bool = False
    names: frozenset[str] = frozenset()

    def check(self, request: Request) -> None:
        """Refuse a request that was led here by a foreign name.

        Raises:
            Problem: 421.
        """
        given = request.headers.get("host", "")
        if LOOPBACK_HOST.match(given):
            return
        name = PORT.sub("", given).lower()
        if name in self.names or (self.beyond_loopback and ADDRESS.fullmatch(name)):
            return
        text = "this server answers on loopback names only"
        if self.beyond_loopback:
            text = f"this server does not answer to the name {name!r}: start it with --allow-host"
        raise Problem(421, text)
