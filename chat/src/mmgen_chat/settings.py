"""What a user prefers, in one TOML file that says nothing secret.

Every key is known: a misspelt one is refused with the nearest that exists, since a setting that is
silently ignored is worse than none. Keys of servers stay in the environment.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from mmgen.errors import SettingsError
from mmgen_chat.controls import CONTROLS, Controls

__all__ = ["Settings", "data_folder", "read_settings", "settings_path"]

FILE = "chat.toml"
_SECRET = frozenset({"api_key", "key", "token", "password", "secret"})


def settings_path() -> Path:
    """Return where the settings are looked for."""
    return platformdirs.user_config_path("mmgen", appauthor=False) / FILE


def data_folder() -> Path:
    """Return where conversations are kept."""
    return platformdirs.user_data_path("mmgen", appauthor=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Preferences. What is not in the file is as here."""

    model: str | None = None
    """Name of an installed model or a checkpoint directory; the library's default without."""
    device: str = "cpu"
    """Where a model in this process runs."""
    endpoint: str | None = None
    """Address of a server, such as `http://localhost:8000/v1`; without it, the model runs here."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key."""
    database: Path = field(default_factory=lambda: data_folder() / "conversations.db")
    """File of all conversations."""
    pictures: Path = Path()
    """Folder into which pictures are saved."""
    theme: str | None = None
    """Name of the colours."""
    graphics: str = "auto"
    """How pictures are shown."""
    previews_per_second: float = 12.0
    """Most previews of a growing picture."""
    leave_out_old_turns: bool = True
    """Whether the oldest turns are left out when a dialogue grows too long for the model; it is
    said each time. If not, the chat asks."""
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts from which pictures may be fetched by address; without any, none are."""
    controls: Controls = field(default_factory=Controls)
    """How answers are made: the table `[defaults]`."""
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Keys by what they do: the table `[keys]`; several keys are separated by commas."""

    @property
    def api_key(self) -> str | None:
        """The key of the server, from the environment. Never to be shown or logged."""
        return os.environ.get(self.api_key_env) or None


def read_settings(path: Path | None = None, *, actions: Collection[str] | None = None) -> Settings:
    """Return the settings of a file; a file that is not there leaves all as it is.

    Args:
        path: the user's own file if not given; a given one must be there.
        actions: what keys can be set for; None leaves that unchecked.

    Raises:
        SettingsError: the file cannot be read, or says something that is not understood.
    """
    place = settings_path() if path is None else path
    try:
        data = tomllib.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path is None:
            return Settings()
        raise SettingsError(f"there is no settings file {place}; check the path") from None
    except OSError as error:
        raise SettingsError(f"cannot read {place}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{place} is not TOML: {error}") from error
    try:
        return _settings(data, place, actions)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error


def _settings(data: dict[str, Any], place: Path, actions: Collection[str] | None) -> Settings:
    readers = {
        "model": _text,
        "device": _text,
        "endpoint": _address,
        "api_key_env": _text,
        "database": _path,
        "pictures": _path,
        "theme": _text,
        "graphics": _text,
        "previews_per_second": _number,
        "leave_out_old_turns": _flag,
        "allowed_hosts": _hosts,
    }
    known = [*readers, "defaults", "keys"]
    for name in data:
        if name.lower() in _SECRET:
            raise SettingsError(
                f"{name!r} does not belong into a file; put the key into an environment variable "
                "and name that with api_key_env"
            )
        if name not in known:
            raise SettingsError(_unknown("setting", name, known))
    values: dict[str, Any] = {
        name: readers[name](name, value) for name, value in data.items() if name in readers
    }
    assert values.keys() <= {item.name for item in fields(Settings)}
    for name in ("database", "pictures"):
        # A relative path in a file is meant from where the file is.
        if name in values:
            values[name] = place.parent / values[name]
    values["controls"] = _controls(_table("defaults", data.get("defaults", {})))
    values["keys"] = _keys(_table("keys", data.get("keys", {})), actions)
    return Settings(**values)


def _controls(table: dict[str, Any]) -> Controls:
    controls = Controls()
    for name, value in table.items():
        if name not in CONTROLS:
            raise SettingsError(_unknown("default", name, CONTROLS))
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SettingsError(f"defaults.{name} is {CONTROLS[name].form}, got {value!r}")
        try:
            controls = controls.changed(name, str(value))
        except SettingsError as error:
            raise SettingsError(f"defaults.{error}") from error
    return controls


def _keys(table: dict[str, Any], actions: Collection[str] | None) -> Mapping[str, str]:
    for name, value in table.items():
        if actions is not None and name not in actions:
            raise SettingsError(_unknown("action", name, actions))
        if not isinstance(value, str) or not all(key.strip() for key in value.split(",")):
            raise SettingsError(
                f'keys.{name} must be a key such as "ctrl+d", or several with commas between '
                f"them, got {value!r}"
            )
    owners: dict[str, str] = {}
    for name, value in table.items():
        for key in (part.strip() for part in value.split(",")):
            if key in owners:
                raise SettingsError(f"{key!r} is the key of both {owners[key]} and {name}")
            owners[key] = name
    return MappingProxyType(dict(table))


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"no {what} is called {name!r}; {hint}"


def _table(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{name!r} is a table: write [{name}] and the settings below it")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"{name} must be a text in quotes, got {value!r}")
    return value.strip()


def _address(name: str, value: object) -> str:
    address = _text(name, value)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"{name} must be an address such as http://localhost:8000/v1, got {address!r}"
        )
    return address


def _path(name: str, value: object) -> Path:
    return Path(_text(name, value)).expanduser()


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 60:
        raise SettingsError(f"{name} must be a number from 0 to 60, got {value!r}")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{name} must be true or false, got {value!r}")
    return value


def _hosts(name: str, value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise SettingsError(f'{name} must be a list such as ["example.org"], got {value!r}')
    return frozenset(host.lower() for host in value)
