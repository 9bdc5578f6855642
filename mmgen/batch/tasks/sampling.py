"""How ids are chosen: what the row says, else the command, else the checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mmgen.batch.fields import integer, number
from mmgen.batch.rows import Row
from mmgen.checkpoint import SamplingDefaults
from mmgen.generate.engine import SamplingParams

__all__ = ["SamplingSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How ids are chosen; what is None is as the checkpoint has it."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        _check(_present(asdict(self)))

    def given(self, row: Row) -> dict[str, Any]:
        """Return what the command and the row say; the row counts more.

        Raises:
            SettingsError: a value lies outside its domain.
        """
        own = {
            "temperature": number(row, "temperature"),
            "top_k": integer(row, "top_k"),
            "top_p": number(row, "top_p"),
        }
        merged = _present(asdict(self)) | _present(own)
        _check(merged)
        return merged

    def params(self, row: Row, defaults: SamplingDefaults) -> SamplingParams:
        """Return the settings of a row, nothing left open."""
        return SamplingParams(**(asdict(defaults) | self.given(row)))


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check(values: dict[str, Any]) -> None:
    SamplingParams(**values)
