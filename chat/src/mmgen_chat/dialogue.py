"""Which turns of a conversation a model is shown.

A question that never got an answer is not repeated, half a picture is not shown, and when the
context is too short the oldest exchanges go first. The last turn always stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mmgen_chat.conversation import Picture, Segment, Turn

__all__ = ["exchanges", "fitting", "shown"]


def shown(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the turns that a model is shown, without what never came to be.

    Args:
        turns: one branch, the last turn a user's.
    """
    *earlier, last = turns
    whole = [replace(turn, segments=_whole(turn.segments)) for turn in earlier]
    kept: list[Turn] = []
    for turn in whole:
        if turn.role == "assistant" and not turn.segments:
            while kept and kept[-1].role == "user":
                kept.pop()
        elif turn.segments:
            kept.append(turn)
    while kept and kept[-1].role == "user":
        kept.pop()
    return (*kept, last)


def exchanges(turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], ...]:
    """Return turns in groups that each begin with a user's turn."""
    groups: list[list[Turn]] = []
    for turn in turns:
        if turn.role == "user" or not groups:
            groups.append([])
        groups[-1].append(turn)
    return tuple(map(tuple, groups))


def fitting(
    turns: Sequence[Turn], cost: Callable[[Turn], int], room: int
) -> tuple[tuple[Turn, ...], int]:
    """Return the longest end of a dialogue that fits, whole exchanges at a time, and its cost.

    The last exchange is returned even when it does not fit; the caller sees by the cost.

    Args:
        cost: number of ids that a turn takes.
        room: ids that may be taken.
    """
    kept: tuple[Turn, ...] = ()
    total = 0
    for group in reversed(exchanges(turns)):
        wanted = sum(map(cost, group))
        if kept and total + wanted > room:
            break
        kept, total = (*group, *kept), total + wanted
    return kept, total


def _whole(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    return tuple(
        item
        for item in segments
        if not (isinstance(item, Picture) and item.drawing and not item.drawing.is_complete)
    )
