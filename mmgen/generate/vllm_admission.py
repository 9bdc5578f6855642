"""How much vLLM may be given at once, so that the rows of a guided request never come apart.

vLLM schedules every request on its own: whatever does not fit a step waits, and whatever does not
fit the cache is thrown out and read again later. Nobody is handed more than fits, so neither
happens, and rows that start together finish their prompts in the same step. The rows of a request
are promised their seats, their share of each step's tokens, and cache for their full length. A
request is told of as the lengths of its rows' prompts, one to three, its own first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmgen.errors import EngineError

__all__ = ["Admission", "Capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one vLLM engine can do."""

    num_rows: int
    """Requests that run at once."""
    step_tokens: int
    """Tokens that one step can take."""
    chunk_tokens: int
    """Tokens of one prompt that one step takes at most."""
    num_blocks: int
    """Blocks of the KV cache."""
    block_size: int
    """Tokens in a block."""
    prefix_caching: bool = True
    """Whether a prompt that was read before is not read again."""
    overcommit: float = 1.0
    """How many times over the cache may be promised. Above 1, vLLM may have to take cache back."""

    def blocks(self, num_tokens: int) -> int:
        """Return the blocks that so many tokens take."""
        return -(-num_tokens // self.block_size)

    def num_chunks(self, num_tokens: int) -> int:
        """Return the steps that it takes to read a prompt."""
        return -(-num_tokens // self.chunk_tokens)

    def chunk(self, num_tokens: int) -> int:
        """Return how many of a prompt's tokens one step takes."""
        return min(num_tokens, self.chunk_tokens)


@dataclass(slots=True)
class _Share:
    num_rows: int
    num_blocks: int
    step_tokens: int


class Admission:
    """Keeps account of what is promised to requests that vLLM has."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._shares: dict[int, _Share] = {}

    def check(self, prompts: Sequence[int], max_ids: int) -> None:
        """Refuse a request that would not fit even if it were alone, or never keep in step.

        Raises:
            EngineError: it needs more than there is.
        """
        capacity = self.capacity
        share = self._share(prompts, max_ids)
        if share.num_rows > capacity.num_rows:
            raise EngineError(
                f"a guided request takes {share.num_rows} rows, but vLLM was started with "
                f"max_num_seqs {capacity.num_rows}; raise it"
            )
        if share.num_blocks > capacity.num_blocks:
            held = capacity.num_blocks * capacity.block_size
            raise EngineError(
                f"{share.num_rows} rows of up to {max(prompts) + max_ids} tokens do not fit a "
                f"cache of {held} tokens; give vLLM a larger one"
            )
        if self._can_be_joined(prompts):
            return
        if not self._is_level(prompts, max_ids):
            other = next(length for length in prompts if length != prompts[0])
            raise EngineError(
                f"the prompt has {prompts[0]} tokens and the one that guidance leads away from "
                f"{other}, which vLLM would read in different numbers of steps of "
                f"{capacity.chunk_tokens} tokens; make them equally long, or give it more tokens "
                "per step"
            )
        if self._step_tokens_at_most(prompts, max_ids) > capacity.step_tokens:
            raise EngineError(
                f"{len(prompts)} prompts of up to {max(prompts) + max_ids} tokens are read together"
                f" in chunks of {capacity.chunk_tokens}, which do not fit a step of "
                f"{capacity.step_tokens} tokens; give vLLM more tokens per step"
            )

    def admit(self, key: int, prompts: Sequence[int], max_ids: int, firm: bool) -> bool:
        """Promise a request what it needs if that is free; return whether it was.

        Args:
            firm: whether the cache must be there even if nobody stops early; otherwise it is
                promised as many times over as `overcommit` says.
        """
        share = self._share(prompts, max_ids)
        held = self._shares.values()
        capacity = self.capacity
        num_blocks = int(capacity.num_blocks * (1.0 if firm else capacity.overcommit))
        fits = (
            sum(item.num_rows for item in held) + share.num_rows <= capacity.num_rows
            and sum(item.num_blocks for item in held) + share.num_blocks <= num_blocks
            and sum(item.step_tokens for item in held) + share.step_tokens <= capacity.step_tokens
        )
        if fits or not self._shares:
            self._shares[key] = share
            return True
        return False

    def note_started(self, key: int) -> None:
        """A request has read its prompt: from now on a step takes one token of each row."""
        if share := self._shares.get(key):
            share.step_tokens = share.num_rows

    def release(self, key: int) -> None:
        """Take back what was promised; a request that holds nothing is let be."""
        self._shares.pop(key, None)

    def _can_be_joined(self, prompts: Sequence[int]) -> bool:
        """Return whether rows that came apart start together at the next attempt.

        They then find all but a block of their prompts in the cache.
        """
        capacity = self.capacity
        return (
            capacity.prefix_caching
            and capacity.block_size <= capacity.chunk_tokens
            and capacity.block_size * len(prompts) <= capacity.step_tokens
        )

    def _is_level(self, prompts: Sequence[int], max_ids: int) -> bool:
        """Return whether rows that start together need equally many steps for their prompts."""
        longest = max(prompts)
        return min(prompts) == longest or longest + max_ids <= self.capacity.chunk_tokens

    def _step_tokens_at_most(self, prompts: Sequence[int], max_ids: int) -> int:
        """Return how much of a step the rows take, with all of their ids as part of the prompt."""
        return len(prompts) * self.capacity.chunk(max(prompts) + max_ids)

    def _share(self, prompts: Sequence[int], max_ids: int) -> _Share:
        capacity = self.capacity
        return _Share(
            num_rows=len(prompts),
            num_blocks=sum(capacity.blocks(tokens + max_ids) for tokens in prompts),
            step_tokens=sum(map(capacity.chunk, prompts)),
        )
