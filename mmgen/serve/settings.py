"""What one server allows and how it listens, as frozen settings."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
from dataclasses import dataclass

from mmgen.errors import SettingsError

__all__ = ["Limits", "ServerConfig"]

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one request, and all of them together, may take."""

    max_body_bytes: int = 32 * MEBIBYTE
    """Largest body of a request."""
    max_body_seconds: float = 60.0
    """Longest time that a client may take to send it."""
    max_pixels: int = 16_000_000
    """Pixels that the pictures of one request may have together."""
    max_pictures: int = 16
    """Pictures that one request may bring."""
    max_n: int = 10
    """Answers or pictures that one request may ask for."""
    max_tokens: int = 4096
    """Text tokens that one answer may be asked to have."""
    max_partial_images: int = 16
    """Previews that may be asked for of one picture."""
    max_turns: int = 64
    """Answers and pictures in the works at once; what comes on top is told to come again."""
    max_fetch_bytes: int = 16 * MEBIBYTE
    """Largest picture that is fetched from elsewhere."""
    max_fetch_seconds: float = 10.0
    """Longest time that fetching one picture may take, redirects included."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("max_pictures", "max_partial_images") else 1
            if not math.isfinite(value) or value < least:
                raise SettingsError(f"{field.name} must be {least} or more, got {value}")
        if self.max_n > self.max_turns:
            raise SettingsError(
                f"max_n {self.max_n} could never be served with max_turns {self.max_turns}; "
                "lower the first or raise the second"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server is reached and by whom."""

    model_name: str
    """What clients call the model."""
    api_key: str | None = None
    """What clients must know; None lets everybody in."""
    allowed_url_hosts: frozenset[str] = frozenset()
    """Hosts, in lower case, from which pictures may be fetched; without any, nothing is."""
    limits: Limits = Limits()
    """How much is allowed."""

    def __post_init__(self) -> None:
        if not self.model_name:
            raise SettingsError("the model needs a name that clients can call it by")
        if self.api_key is not None and not self.api_key.strip():
            raise SettingsError("the API key is empty; leave it out to let everybody in")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise SettingsError("the API key has characters that no HTTP header can carry")
        for host in self.allowed_url_hosts:
            _check_host(host)


def _check_host(host: str) -> None:
    """Refuse what is not a bare host name: no scheme, port, path, pattern or address."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        raise SettingsError(f"pictures are fetched from hosts with a name, got the address {host}")
    labels = host.split(".")
    is_name = all(label and label.replace("-", "").isalnum() for label in labels)
    if not is_name or not host.isascii() or host != host.lower():
        raise SettingsError(
            f"{host!r} is not a host name; give one such as images.example.org, without scheme, "
            "port or path"
        )
