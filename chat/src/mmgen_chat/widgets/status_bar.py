"""The last line of the screen: what answers, how fast, and how much of its memory is in use."""

from __future__ import annotations

from textual.app import RenderResult
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

__all__ = ["StatusBar"]


class StatusBar(Widget):
    """Engine and model, speed, context, and what is going on."""

    DEFAULT_CSS = """
    StatusBar { height: 1; dock: bottom; padding: 0 1; background: $panel; color: $text; }
    """

    engine: reactive[str] = reactive("")
    doing: reactive[str] = reactive("")
    rate: reactive[float | None] = reactive(None)
    context_ids: reactive[int | None] = reactive(None)
    context_length: reactive[int | None] = reactive(None)

    def render(self) -> RenderResult:
        left = [part for part in (self.doing, self.engine) if part]
        right = []
        if self.rate is not None:
            right.append(f"{self.rate:,.0f} tokens/s")
        if self.context_ids is not None:
            of = f"/{self.context_length}" if self.context_length else ""
            right.append(f"context {self.context_ids}{of}")
        right.append("? keys")
        tail = " · ".join(right)
        room = max(0, self.content_size.width - len(tail) - 1)
        head = " · ".join(left)
        head = head if len(head) <= room else head[: max(0, room - 1)] + "…"
        return Content(head.ljust(room) + " " + tail)
