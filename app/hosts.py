"""Which hosts Millrace calls for its users: those on the public internet, and those that the settings allow."""

import asyncio
import ipaddress
import socket
from collections.abc import Collection

import httpx

from app.errors import Invalid

# NAT64 prefixes and the like lie outside.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def read_url(text: str) -> httpx.URL:
    """Raises `Invalid` HTTP_URL_INVALID for what no call can be made to."""
    try:
        url = httpx.URL(text)
        host = url.host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Invalid("HTTP_URL_INVALID", str(error)) from error
    if url.scheme not in {"http", "https"} or not host:
        raise Invalid("HTTP_URL_INVALID", "the URL needs http:// or https:// and a host")
    return url


def place_of(url: httpx.URL) -> tuple[str, int]:
    """Host and port, as they go over the wire: an international name in its ASCII form, not in Python's."""
    return url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)


async def addresses_of(host: str, port: int) -> list[str]:
    """Where a host is. Raises OSError, and UnicodeError for what can be none."""
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def refused_address(host: str, port: int, addresses: Collection[str], allowed: Collection[str]) -> str | None:
    """Why a host at these addresses is not called; None when it is. What is allowed is a host, or a host and a port."""
    name = host.strip("[]")
    if {host, name, f"{host}:{port}"} & {*allowed}:
        return None
    private = [address for address in addresses if not is_public(address)]
    return f"{host} is at {private[0]}, which is not a public address" if private else None


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, also where it carries another one inside."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.is_global and not parsed.is_multicast
    carried = parsed.ipv4_mapped or parsed.sixtofour
    if carried is not None:
        return is_public(str(carried))
    return parsed in _GLOBAL_UNICAST and parsed.is_global and not parsed.is_multicast and parsed.teredo is None
