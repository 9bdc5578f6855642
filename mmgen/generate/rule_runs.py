"""Rules beside an engine's scores: which ids they exclude, and how far each has come.

An engine that is not ours may take a step again, or draw an id that is then thrown away. So the run
of a rule is asked by the number of the step, and follows whatever was last drawn for those before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mmgen.errors import EngineError
from mmgen.generate.engine import AbstractRule

__all__ = ["RuleRun", "excluded", "stuck_error"]


class RuleRun:
    """One span under its rule."""

    def __init__(self, rule: AbstractRule) -> None:
        self.is_stuck = False
        """Whether the rule allowed none of the ids at the step that was asked for last."""
        self._rule = rule
        self._state = rule.begin()
        self._num_advanced = 0
        self._ids: list[int] = []

    def excluded(self, ids: torch.Tensor, step: int) -> torch.Tensor | None:
        """Return which of some ids may not come at a step; None if the rule leaves none.

        Args:
            ids: int64 `[ids]`.
            step: from 0, at most one after the last that was drawn.
        """
        found = excluded(ids, self._allowed(step))
        self.is_stuck = found is None
        return found

    def take(self, step: int, id_: int) -> None:
        """Note the id that was drawn at a step."""
        del self._ids[step:]
        self._ids.append(id_)

    def _allowed(self, step: int) -> npt.NDArray[np.bool_]:
        if step < self._num_advanced:
            self._state, self._num_advanced = self._rule.begin(), 0
        for id_ in self._ids[self._num_advanced : step]:
            self._state.advance(id_)
        self._num_advanced = step
        return self._state.allowed()


def excluded(ids: torch.Tensor, allowed: npt.NDArray[np.bool_]) -> torch.Tensor | None:
    """Return which of some ids a rule excludes, bool `[ids]`; None if it leaves none.

    Args:
        ids: int64 `[ids]`.
        allowed: what the rule says of each id from 0 on.
    """
    known = torch.from_numpy(allowed)
    asked = ids.cpu()
    may_come = (asked < len(known)) & known[asked.clamp(max=len(known) - 1)]
    return ~may_come.to(ids.device) if bool(may_come.any()) else None


def stuck_error(num_ids: int) -> EngineError:
    """Return why an engine gives up a request whose rule leaves no id."""
    return EngineError(f"after {num_ids} tokens the answer cannot go on in the form it must have")
