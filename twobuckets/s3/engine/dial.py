"""Opens connections: whom to trust, which proxy to go through, and where a host's addresses are."""

import socket
import ssl
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from twobuckets.s3.engine.records import ServerAddress
from twobuckets.s3.engine.wire import Address, Connection, Task

_ADDRESSES_LIVE = 30.0
"""Seconds for which a host's addresses are used before they are looked up again."""


class Dial:
    """Opens connections: knows whom to trust, which proxy to go through and where hosts are."""

    def __init__(
        self, ca_bundle: str | None, proxy: str | None, monotonic: Callable[[], float]
    ) -> None:
        self.proxy = proxy
        self._ca_bundle = ca_bundle
        self._monotonic = monotonic
        self._context: ssl.SSLContext | None = None
        self._addresses: dict[ServerAddress, tuple[float, deque[Address]]] = {}

    def open(self, connection: Connection) -> Task[None]:
        """Open a connection to the next of its host's addresses that answers: S3 has many."""
        origin = connection.origin
        known = self._addresses.get(origin)
        if known is None or self._monotonic() - known[0] > _ADDRESSES_LIVE:
            known = self._monotonic(), deque(_find_addresses(origin, self.proxy))
            self._addresses[origin] = known
        if origin.tls and self._context is None:
            self._context = ssl.create_default_context(cafile=self._ca_bundle)
        addresses = known[1]
        for left in reversed(range(len(addresses))):
            addresses.rotate(-1)
            try:
                yield from connection.open(addresses[-1], self._context, self.proxy)
            except ssl.SSLError:
                raise
            except OSError:
                # `localhost` has an IPv6 address where nobody may listen.
                connection.close()
                if not left:
                    raise
            else:
                return


def _find_addresses(origin: ServerAddress, proxy: str | None) -> list[Address]:
    """Return the addresses to connect to for an origin: its own ones, or those of the proxy."""
    host, port = origin.host, origin.port
    if proxy is not None:
        parts = urlsplit(proxy)
        host, port = parts.hostname or "", parts.port or 80
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]
