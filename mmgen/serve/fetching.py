"""Fetching pictures from elsewhere, for servers that allow it, without becoming a tool of attack.

Only hosts that the server's owner named are asked. Their names are looked up here, every address
must be a public one, and the connection is made to the address that was checked, never to the
name: what the name answers a moment later does not matter. Redirects pass the same checks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from mmgen.serve.refusals import Refusal
from mmgen.serve.settings import Limits

__all__ = ["Fetcher", "Resolver", "is_public_address", "resolve"]

Resolver: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host, given its name and a port."""

MAX_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_EMBEDDED = (
    # IPv6 networks whose addresses stand for IPv4 ones: NAT64, 6to4, Teredo, IPv4-compatible.
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2002::/16"),
    ipaddress.ip_network("2001::/32"),
    ipaddress.ip_network("::/96"),
)


def is_public_address(text: str) -> bool:
    """Return whether an address is one of the open Internet.

    Private, loopback, link-local (where clouds keep their metadata), shared, multicast and
    reserved addresses are not, nor are IPv6 forms of IPv4 addresses.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public_address(str(address.ipv4_mapped))
        if any(address in network for network in _EMBEDDED) or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetcher:
    """Fetches from allowed hosts within limits."""

    def __init__(
        self,
        allowed_hosts: frozenset[str],
        limits: Limits,
        *,
        resolver: Resolver = resolve,
        is_allowed: Callable[[str], bool] = is_public_address,
        ports: frozenset[int] = frozenset(_PORTS.values()),
    ) -> None:
        """Keep the rules.

        Args:
            allowed_hosts: names in lower case.
            resolver: looks names up.
            is_allowed: says which addresses may be connected to.
            ports: those that may be connected to.
        """
        self._allowed_hosts = allowed_hosts
        self._limits = limits
        self._resolver = resolver
        self._is_allowed = is_allowed
        self._ports = ports

    async def fetch(self, url: str, param: str) -> bytes:
        """Return what is at an address.

        Args:
            param: the field that holds the address, for messages.

        Raises:
            Refusal: the address is not allowed, or nothing usable came from there in time.
        """
        if not self._allowed_hosts:
            raise Refusal(
                f"{param} is an address, and this server fetches nothing; send the picture "
                "itself as data:image/png;base64,...",
                param=param,
                code="invalid_image_url",
            )
        seconds = self._limits.max_fetch_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(url, param)
        except TimeoutError:
            raise _failure(param, f"nothing complete came within {seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise _failure(param, type(error).__name__) from error

    async def _follow(self, url: str, param: str) -> bytes:
        timeout = httpx.Timeout(self._limits.max_fetch_seconds)
        # Settings from the environment, such as proxies, would lead around the checks.
        async with httpx.AsyncClient(
            trust_env=False, timeout=timeout, limits=httpx.Limits(max_keepalive_connections=0)
        ) as client:
            for _ in range(MAX_REDIRECTS + 1):
                parts = self._checked(url, param)
                address = await self._address(parts, param)
                found = await self._get(client, parts, address, param)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
        raise _failure(param, f"it redirects more than {MAX_REDIRECTS} times")

    def _checked(self, url: str, param: str) -> SplitResult:
        """Return the parts of an address that may be asked."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise _failure(param, f"it is malformed: {error}") from error
        if parts.scheme not in _PORTS:
            raise _failure(param, f"the scheme {parts.scheme!r} is not http or https")
        if parts.username is not None or parts.password is not None:
            raise _failure(param, "it carries a user name or a password")
        host = (parts.hostname or "").rstrip(".")
        if host not in self._allowed_hosts:
            raise _failure(param, f"the host {host!r} is not one that this server fetches from")
        if port not in self._ports:
            raise _failure(param, f"the port {port} is not allowed")
        return parts

    async def _address(self, parts: SplitResult, param: str) -> str:
        """Return the address to connect to; a single one that is not public spoils the name."""
        assert parts.hostname is not None
        addresses = await self._resolver(parts.hostname, parts.port or _PORTS[parts.scheme])
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise _failure(param, f"the host {parts.hostname!r} has no public address")
        return addresses[0]

    async def _get(
        self, client: httpx.AsyncClient, parts: SplitResult, address: str, param: str
    ) -> bytes | str:
        """Return the body, or where a redirect leads."""
        assert parts.hostname is not None
        host = f"[{address}]" if ":" in address else address
        port = parts.port or _PORTS[parts.scheme]
        target = parts._replace(netloc=f"{host}:{port}", fragment="").geturl()
        name = parts.hostname if port == _PORTS[parts.scheme] else f"{parts.hostname}:{port}"
        headers = {"host": name, "accept": "image/*", "accept-encoding": "identity"}
        extensions = {"sni_hostname": parts.hostname}
        async with client.stream("GET", target, headers=headers, extensions=extensions) as answer:
            self._check_peer(answer, param)
            if answer.is_redirect:
                return answer.headers["location"]
            if answer.status_code != 200:
                raise _failure(param, f"the answer was HTTP {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise _failure(param, "the answer is compressed, which was not asked for")
            most = self._limits.max_fetch_bytes
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > most:
                    raise _failure(param, f"it has more than {most:,} bytes")
            return bytes(body)

    def _check_peer(self, answer: httpx.Response, param: str) -> None:
        """Look at the connection itself: the other end must be an address that is allowed."""
        peer = answer.extensions["network_stream"].get_extra_info("server_addr")
        if peer is None or not self._is_allowed(str(peer[0])):
            raise _failure(param, "the connection does not lead to a public address")


def _failure(param: str, reason: str) -> Refusal:
    return Refusal(
        f"{param} cannot be fetched: {reason}; send the picture itself as "
        "data:image/png;base64,...",
        param=param,
        code="invalid_image_url",
    )
