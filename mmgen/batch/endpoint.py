"""A server with OpenAI's routes that answers the rows of a job, and what it says of itself."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from mmgen.batch.posting import AbstractPoster, EndpointPoster, Reply
from mmgen.errors import EngineError, SettingsError, TransientError

__all__ = ["Endpoint", "Omittable", "ServedModel", "find_model", "served_models"]

Omittable: TypeAlias = Literal["max_tokens", "response_format", "seed"]
"""Fields that every request has, and that some servers refuse."""

_MAX_NAMES_TOLD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model as a server tells of it; what a server does not tell is None."""

    name: str
    is_mmgen: bool = False
    """Whether mmgen serves it, and takes fields that are not OpenAI's."""
    fingerprint: str | None = None
    caption_prompt: str | None = None
    """What it is asked about a picture where nobody says otherwise."""


class Endpoint:
    """One model of one server. For several threads at once."""

    def __init__(
        self, poster: AbstractPoster, model: ServedModel, *, omit: Collection[Omittable] = ()
    ) -> None:
        """Take who is asked.

        Args:
            omit: fields to leave out of requests, for servers that refuse them.
        """
        unknown = set(omit) - set(get_args(Omittable))
        if unknown:
            raise SettingsError(f"requests have no field {sorted(unknown)[0]!r} to leave out")
        self.model = model
        self.omitted = tuple(sorted(set(omit)))
        self._poster = poster
        self._lock = threading.Lock()
        self._num_ids = 0

    @property
    def description(self) -> Mapping[str, Any]:
        """Who answers, for the job's identity."""
        content = {"endpoint": self._poster.name, "name": self.model.name}
        if self.model.fingerprint is not None:
            content["fingerprint"] = self.model.fingerprint
        return content

    @property
    def num_ids(self) -> int:
        """Token ids taken and given so far, as far as the server counts them."""
        return self._num_ids

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer.

        Args:
            body: all but the model's name.

        Raises:
            TransientError: the same may succeed later.
            SettingsError: the server refuses the request.
            EngineError: the answer cannot be read.
        """
        sent = {name: value for name, value in body.items() if name not in self.omitted}
        reply = self._poster.post(path, {"model": self.model.name, **sent})
        if reply.status >= 400:
            raise SettingsError(f"the server refused it ({reply.status}): {_message(reply)}")
        if not isinstance(reply.body, dict):
            raise EngineError(f"{path} answered with {type(reply.body).__name__}, not an object")
        usage = reply.body.get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        if isinstance(total, int):
            with self._lock:
                self._num_ids += total
        return reply.body


def find_model(poster: EndpointPoster, name: str | None) -> ServedModel:
    """Ask a server what it serves, and choose one of its models.

    Args:
        name: of the model that is wanted; None for the only one there is.

    Raises:
        TransientError: the server does not answer.
        SettingsError: it wants another key, has no such model, or has several.
        EngineError: it has not the routes that are needed.
    """
    found = served_models(poster)
    names = ", ".join(list(found)[:_MAX_NAMES_TOLD]) + ", …" * (len(found) > _MAX_NAMES_TOLD)
    if name is None and len(found) > 1:
        raise SettingsError(f"{poster.name} serves several models; choose with --model: {names}")
    if name is not None and name not in found:
        raise SettingsError(f"{poster.name} serves no model {name!r}; there is: {names}")
    return found[name] if name is not None else next(iter(found.values()))


def served_models(poster: EndpointPoster) -> dict[str, ServedModel]:
    """Ask a server what it serves; return its models, one or more, by name.

    Raises:
        TransientError: the server does not answer.
        SettingsError: it wants another key, or has no model.
        EngineError: it has not the routes that are needed.
    """
    try:
        reply = poster.get("/v1/models")
    except TransientError as error:
        raise TransientError(f"{error}; start it, or give another address") from error
    except EngineError as error:
        raise EngineError(f"{error}; give the address of a server with OpenAI's routes") from error
    if reply.status in (401, 403):
        raise SettingsError(
            f"{poster.name} refuses the key, or wants one ({reply.status}); give it with "
            "--api-key or MMGEN_API_KEY"
        )
    entries = reply.body.get("data") if isinstance(reply.body, dict) else None
    if reply.status >= 400 or not isinstance(entries, list):
        raise EngineError(
            f"{poster.name} does not tell its models ({reply.status} for /v1/models); give the "
            "address of a server with OpenAI's routes"
        )
    models = (
        _model(entry)
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    )
    found = {model.name: model for model in models}
    if not found:
        raise SettingsError(f"{poster.name} serves no model; load one there first")
    return found


def _model(entry: dict[str, Any]) -> ServedModel:
    told = entry.get("mmgen")
    if not isinstance(told, dict):
        return ServedModel(name=entry["id"])
    return ServedModel(
        name=entry["id"],
        is_mmgen=True,
        fingerprint=_text(told.get("fingerprint")),
        caption_prompt=_text(told.get("caption_prompt")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _message(reply: Reply) -> str:
    """Return what a refusal says, in OpenAI's shape or another."""
    error = reply.body.get("error", reply.body) if isinstance(reply.body, dict) else reply.body
    message = error.get("message") if isinstance(error, dict) else error
    return str(message if message else reply.body)[:500]
