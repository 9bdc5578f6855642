"""What is done with each row: requests to ask, and what to keep of the answers."""

from __future__ import annotations

from mmgen.batch.tasks.abstract import AbstractTask, ColumnKind

__all__ = ["AbstractTask", "ColumnKind"]
