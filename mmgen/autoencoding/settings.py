"""Settings of a tokenizer with weights, as its `tokenizer_config.json` holds them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mmgen.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LearnedSettings", "fingerprint_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedSettings:
    """Everything that shapes a network, and what is promised of it. Plugins add their own."""

    ineffective: ClassVar[frozenset[str]] = frozenset({"min_psnr"})
    """Fields that change no code and no pixel, so that the fingerprint leaves them out."""

    min_psnr: float = 0.0
    """Round-trip PSNR in dB promised to the conformance kit."""

    @classmethod
    def of(cls, values: Mapping[str, object], origin: str) -> Self:
        """Build settings from plain values; lists become tuples, which JSON does not have.

        Raises:
            PluginError: a field that does not exist, or a value that the settings refuse.
        """
        known = sorted(field.name for field in dataclasses.fields(cls))
        for name in values:
            if name not in known:
                raise PluginError(
                    f"{origin} name {name!r}, which is not a setting; there are {', '.join(known)}"
                )
        plain: dict[str, Any] = {name: _tuples(value) for name, value in values.items()}
        try:
            return cls(**plain)
        except (TypeError, ValueError) as error:
            raise PluginError(f"{origin} do not fit: {error}") from error

    def to_plain(self) -> dict[str, Any]:
        """Return the fields as `of` takes them."""
        return dataclasses.asdict(self)


def fingerprint_of(settings: LearnedSettings, state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 in hex of what settings and weights make of a picture."""
    shaping = dataclasses.asdict(settings)
    for name in settings.ineffective:
        del shaping[name]
    digest = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode())
    for key in sorted(state):
        digest.update(f"\0{key}\0{list(state[key].shape)}\0".encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
