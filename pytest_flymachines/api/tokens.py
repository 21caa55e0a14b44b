"""The Authorization header for a Fly token.

The rules are those of Fly's own client
(https://github.com/superfly/fly-go/blob/main/tokens/tokens.go).
"""

from __future__ import annotations

import re

from pytest_flymachines.errors import SettingsError

__all__ = ["authorization"]

_MACAROON = ("fm1r_", "fm1a_", "fm2_")
_SCHEMES = re.compile(r"\A(?:\s*(?:Bearer|FlyV1)\s+)+", re.IGNORECASE)


def authorization(token: str) -> str:
    """The value of the Authorization header for a token in any form that Fly's tools print.

    A scheme in front is dropped. If the comma-separated parts hold a macaroon, only the
    macaroons are sent, all of them together, as `FlyV1`; else the parts are sent as `Bearer`.

    Args:
        token: Token with or without scheme; empty gives an empty header value.

    Raises:
        SettingsError: The token cannot be in an HTTP header. The message does not show it.
    """
    parts = [part.strip() for part in _SCHEMES.sub("", token).split(",") if part.strip()]
    macaroons = [part for part in parts if part.startswith(_MACAROON)]
    value = ",".join(macaroons or parts)
    sendable = value.isascii() and value.isprintable() and " " not in value
    scheme = "FlyV1" if macaroons else "Bearer"
    if not sendable:
        del token, parts, macaroons, value  # tracebacks may show locals
        raise SettingsError(
            "the Fly API token holds spaces, control or non-ASCII characters; expected what "
            "`fly tokens create` prints, on one line"
        )
    return f"{scheme} {value}" if value else ""
