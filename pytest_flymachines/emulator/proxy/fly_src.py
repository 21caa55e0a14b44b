"""`fly-src`: which machine a request comes from, signed so that its receiver can tell.

On requests from machines that come through the proxy. Fly signs with a key of its own; here every
emulator has one, and machines find its public half where Fly's is. Form of both as
superfly/flysrc-go reads them: https://github.com/superfly/flysrc-go.
"""

from __future__ import annotations

import time
from base64 import b64encode
from typing import TYPE_CHECKING

from pytest_flymachines.emulator.proxy.directory import Caller
from pytest_flymachines.emulator.proxy.headers import Headers

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["PUBLIC_KEY", "FlySrc"]

PUBLIC_KEY = "/.fly/fly-src.pub"
"""Where programs in machines find the key to verify with."""


class FlySrc:
    """Signs with a key that is made when it is first needed."""

    def __init__(self) -> None:
        self._made: Ed25519PrivateKey | None = None

    @property
    def public_key(self) -> bytes:
        """The content of that file: the 32 bytes of the key in hexadecimal, without a newline."""
        return self._key.public_key().public_bytes_raw().hex().encode()

    def headers(self, caller: Caller) -> Headers:
        """Say that a request comes from this machine."""
        fields = {
            "instance": caller.machine,
            "app": caller.app,
            "org": caller.org,
            "ts": int(time.time()),
        }
        said = ";".join(f"{key}={value}" for key, value in fields.items()).encode("latin-1")
        return [(b"fly-src", said), (b"fly-src-signature", b64encode(self._key.sign(said)))]

    @property
    def _key(self) -> Ed25519PrivateKey:
        if self._made is None:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # 20 ms
                Ed25519PrivateKey,
            )

            self._made = Ed25519PrivateKey.generate()
        return self._made
