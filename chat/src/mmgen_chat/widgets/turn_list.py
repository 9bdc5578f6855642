"""All turns of the branch, the last in view; versions of the last turn may stand side by side."""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import ItemGrid, VerticalScroll

from mmgen_chat.conversation import Conversation, Picture, Turn
from mmgen_chat.widgets.picture_view import PictureView, Surface
from mmgen_chat.widgets.turn_view import MIN_COLUMNS, TurnView

__all__ = ["TurnList"]


class _Contest(ItemGrid):
    """Versions of one turn side by side."""

    DEFAULT_CSS = """
    _Contest { height: auto; }
    _Contest TurnView { width: 1fr; padding-right: 0; }
    """

    def __init__(self, surface: Surface, turns: Sequence[Turn]) -> None:
        self.turn_ids = tuple(turn.id for turn in turns)
        of = len(turns)
        super().__init__(
            *(TurnView(surface, turn, version=(at, of)) for at, turn in enumerate(turns, start=1)),
            min_column_width=MIN_COLUMNS,
        )


class TurnList(VerticalScroll, can_focus=False):
    """The conversation as it is shown."""

    DEFAULT_CSS = """
    TurnList { height: 1fr; scrollbar-size-vertical: 1; }
    """

    def __init__(self, surface: Surface) -> None:
        super().__init__()
        self._surface = surface

    async def show(self, conversation: Conversation, contest: Sequence[str] = ()) -> None:
        """Show the current branch, keeping what is shown already.

        Args:
            contest: ids of versions of the last turn that are shown side by side.
        """
        turns = list(conversation.path())
        keys: list[tuple[str, ...]] = [(turn.id,) for turn in turns]
        if contest:
            keys[-1] = tuple(contest)
        rows = [row for row in self.children if isinstance(row, TurnView | _Contest)]
        same = 0
        while same < min(len(rows), len(keys)) and _key(rows[same]) == keys[same]:
            same += 1
        await self.remove_children(rows[same:])
        for row, turn in zip(rows[:same], turns, strict=False):
            if isinstance(row, TurnView):
                row.set_version(*_version(conversation, turn))
        await self.mount_all(self._row(conversation, key) for key in keys[same:])
        self.anchor()

    @property
    def views(self) -> list[TurnView]:
        """The turns that are shown."""
        return list(self.query(TurnView))

    def view_of(self, turn_id: str) -> TurnView | None:
        """Return the view of a turn, None where it is not shown."""
        return next((view for view in self.views if view.turn.id == turn_id), None)

    def show_picture(self, picture: Picture) -> None:
        """Show a later state of a picture wherever it is shown."""
        for view in self.views:
            if any(item.id == picture.id for item in view.turn.pictures):
                view.show_picture(picture)

    def change_terminal(self) -> None:
        """Paint all pictures anew after the surface's terminal has changed."""
        for view in self.query(PictureView):
            view.change_terminal()

    def _row(self, conversation: Conversation, key: tuple[str, ...]) -> TurnView | _Contest:
        turns = [conversation.turns[turn_id] for turn_id in key]
        if len(turns) > 1:
            return _Contest(self._surface, turns)
        return TurnView(self._surface, turns[0], version=_version(conversation, turns[0]))


def _key(row: TurnView | _Contest) -> tuple[str, ...]:
    return (row.turn.id,) if isinstance(row, TurnView) else row.turn_ids


def _version(conversation: Conversation, turn: Turn) -> tuple[int, int]:
    versions = [item.id for item in conversation.siblings(turn.id)]
    return versions.index(turn.id) + 1, len(versions)
