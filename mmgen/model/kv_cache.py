"""Keys and values of the past, in one tensor allocated once.

A row is one sequence. Rows may stand at different positions; who owns which row, and how long it
is, is the business of the engine, so the cache itself holds no lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from mmgen.errors import SettingsError
from mmgen.model.config import DecoderConfig

__all__ = ["KVCache"]


@dataclass(frozen=True, slots=True, eq=False)
class KVCache:
    """Static key and value store of a number of rows."""

    entries: torch.Tensor
    """`[layers, rows, 2 * kv_heads, length, head_dim]`: the key heads, then the value heads."""

    @classmethod
    def allocate(
        cls,
        config: DecoderConfig,
        *,
        rows: int,
        length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return a cache of zeros for `rows` sequences of up to `length` ids."""
        if rows < 1 or not 1 <= length <= config.context_length:
            raise SettingsError(
                f"a cache needs 1 row or more and a length of 1 to {config.context_length} (the "
                f"decoder's context), got {rows} rows of {length}"
            )
        shape = (config.num_layers, rows, 2 * config.num_kv_heads, length, config.head_dim)
        if torch.device(device).type != "cpu":
            return cls(torch.zeros(shape, dtype=dtype, device=device))
        # numpy asks the system for zeros, which takes memory only where a row comes to reach, and
        # no time; torch would write them all.
        memory = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
        return cls(torch.from_numpy(memory).view(dtype).view(shape))

    @property
    def keys(self) -> torch.Tensor:
        """A view, `[layers, rows, kv_heads, length, head_dim]`."""
        return self.entries[:, :, : self.entries.shape[2] // 2]

    @property
    def values(self) -> torch.Tensor:
        """A view, `[layers, rows, kv_heads, length, head_dim]`."""
        return self.entries[:, :, self.entries.shape[2] // 2 :]

    @property
    def rows(self) -> int:
        return self.entries.shape[1]

    @property
    def length(self) -> int:
        return self.entries.shape[3]

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one row to another, so that both share a prefix."""
        self.entries[:, target, :, :length] = self.entries[:, source, :, :length]
