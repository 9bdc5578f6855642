"""Complete training runs as functions: each returns one frozen config and does nothing else."""

from __future__ import annotations

__all__: list[str] = []
