"""What the slash commands do; their names and forms are in `mmgen_chat.slash_commands`."""

from __future__ import annotations

from mmgen_chat.commands.commander import Commander

__all__ = ["Commander"]
