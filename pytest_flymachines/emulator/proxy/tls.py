"""TLS that ends in the proxy, with certificates of a CA that lives as long as the proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pytest_flymachines.emulator.config import TlsOptions

if TYPE_CHECKING:
    import trustme

__all__ = ["Tls", "TlsUnavailable"]

NAMES = ("*.fly.dev", "*.flycast", "localhost", "127.0.0.1", "::1")
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class TlsUnavailable(Exception):
    """Certificates cannot be made here; the text says what to install."""


class Tls:
    """Makes one certificate for all apps when it is first needed: that takes a tenth second.

    Args:
        names: Names and addresses of this computer, beside loopback's.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = dict.fromkeys([*NAMES, *names])
        self._certificate: asyncio.Task[tuple[trustme.CA, trustme.LeafCert]] | None = None

    async def context(self, options: TlsOptions | None, alpn: Sequence[str]) -> ssl.SSLContext:
        """What a server needs for TLS.

        Args:
            options: `tls_options` of a port.
            alpn: Protocols to offer if the options name none.

        Raises:
            TlsUnavailable: The `trustme` package is not there.
        """
        _, certificate = await self._made()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        options = options or TlsOptions()
        versions = [VERSIONS[name] for name in options.versions or () if name in VERSIONS]
        context.minimum_version = min(versions, default=ssl.TLSVersion.TLSv1_2)
        context.maximum_version = max(versions, default=ssl.TLSVersion.TLSv1_3)
        if protocols := list(options.alpn or alpn):
            context.set_alpn_protocols(protocols)
        return context

    async def ca_pem(self) -> bytes:
        """The certificate of the CA, for clients that are to trust it.

        Raises:
            TlsUnavailable: The `trustme` package is not there.
        """
        ca, _ = await self._made()
        return ca.cert_pem.bytes()

    async def close(self) -> None:
        """Wait until nothing is being made any more."""
        if self._certificate:
            await asyncio.wait([self._certificate])

    async def _made(self) -> tuple[trustme.CA, trustme.LeafCert]:
        if self._certificate is None:
            making = asyncio.to_thread(_make, self._names)
            self._certificate = asyncio.create_task(making, name="certificate")
        return await asyncio.shield(self._certificate)


def _make(names: Iterable[str]) -> tuple[trustme.CA, trustme.LeafCert]:
    try:
        import trustme
    except ImportError as error:
        text = f"TLS needs the trustme package: pip install 'pytest-flymachines[local]' ({error})"
        raise TlsUnavailable(text) from None
    ca = trustme.CA()
    return ca, ca.issue_cert(*names)
