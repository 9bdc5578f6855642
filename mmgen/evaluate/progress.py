"""How measuring tells how far it is, without knowing who watches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

__all__ = ["Progress", "unwatched"]

Item = TypeVar("Item")


class Progress(Protocol):
    """Gives the items of a sequence one by one and shows how many have been taken."""

    def __call__(self, items: Sequence[Item], label: str) -> Iterable[Item]:
        """Return the items; `label` says what is done with them."""


def unwatched(items: Sequence[Item], label: str) -> Iterable[Item]:
    """Give the items and show nothing."""
    return items
