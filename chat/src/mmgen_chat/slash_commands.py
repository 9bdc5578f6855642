"""The commands that begin with a slash: their names, what follows them, and how they are read.

What they do is in `mmgen_chat.commanding`; here are only words, so that completion and help need
nothing else.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mmgen.errors import SettingsError

__all__ = ["COMMANDS", "Command", "Typed", "read_command"]

Choice: TypeAlias = Literal[
    "none", "text", "path", "model", "tokenizer", "size", "tokens", "theme", "graphics", "kind",
    "format", "conversation",
]  # fmt: skip
"""What an argument is, which decides how it is completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command."""

    form: str
    """What follows the name, as help shows it."""
    summary: str
    group: Literal["pictures", "answers", "settings", "conversations", "the chat"]
    choice: Choice = "none"
    """What the first word after the name is."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A command as it was typed."""

    name: str
    rest: str
    """Everything after the name, without blanks around it."""

    @property
    def words(self) -> list[str]:
        """The words after the name; quotes keep words together."""
        try:
            return shlex.split(self.rest)
        except ValueError:
            return self.rest.split()


def _pictures(form: str, summary: str, choice: Choice = "none") -> Command:
    return Command(form=form, summary=summary, group="pictures", choice=choice)


def _answers(form: str, summary: str, choice: Choice = "none") -> Command:
    return Command(form=form, summary=summary, group="answers", choice=choice)


def _settings(form: str, summary: str, choice: Choice = "none") -> Command:
    return Command(form=form, summary=summary, group="settings", choice=choice)


def _keeping(form: str, summary: str, choice: Choice = "none") -> Command:
    return Command(form=form, summary=summary, group="conversations", choice=choice)


def _chat(form: str, summary: str, choice: Choice = "none") -> Command:
    return Command(form=form, summary=summary, group="the chat", choice=choice)


COMMANDS: Mapping[str, Command] = {
    "draw": _pictures("WORDS", "draw, whatever the model would rather do", "text"),
    "describe": _pictures("[WORDS]", "say what the attached or the last picture shows", "text"),
    "best": _pictures("N [WORDS]", "draw N, keep the one that the model finds best"),
    "compare": _pictures(
        "MODEL|seed [MODEL|seed] [WORDS]", "draw side by side: two models or two seeds", "model"
    ),
    "refine": _pictures("[TOKENS]", "go on with the last picture, with more tokens", "tokens"),
    "attach": _pictures("PATH|URL...", "add pictures to what you say next", "path"),
    "paste": _pictures("", "attach the picture in the clipboard"),
    "detach": _pictures("[NUMBER]", "take an attached picture away, or all"),
    "save": _pictures("[PATH]", "save the last picture", "path"),
    "copy": _pictures("", "copy the last picture"),
    "open": _pictures("", "open the last picture in the system's viewer"),
    "gallery": _pictures("", "see all pictures of all conversations"),
    "again": _answers("", "answer the last turn once more, with another seed"),
    "retry": _answers("", "send the last turn once more, as it was"),
    "edit": _answers("", "change what you said last; the old version is kept"),
    "stop": _answers("", "stop the answer (also Esc)"),
    "model": _settings("[NAME|DIR]", "use another model", "model"),
    "endpoint": _settings("[URL|off]", "use a server, or the model in this process again"),
    "tokenizer": _settings("[NAME]", "visual tokenizer that draws and looks", "tokenizer"),
    "size": _settings("[WxH]", "size of pictures in pixels", "size"),
    "tokens": _settings("[N]", "tokens of a picture, where there is a choice", "tokens"),
    "guidance": _settings("[image] [X]", "how strongly pictures follow words, or your pictures"),
    "seed": _settings("[N|auto]", "the same seed for every answer, or a fresh one"),
    "n": _settings("[N]", "pictures for one /draw"),
    "temperature": _settings("[text|image] [X]", "spread of the choice", "kind"),
    "topk": _settings("[text|image] [N]", "choose among the N best only", "kind"),
    "panel": _settings("", "show or hide the settings (also F2)"),
    "new": _keeping("", "begin a new conversation"),
    "list": _keeping("[WORDS]", "find and open a conversation", "text"),
    "rename": _keeping("TITLE", "give the conversation another title", "text"),
    "delete": _keeping("", "delete the conversation, after asking"),
    "export": _keeping("md|html [PATH]", "write the conversation to files", "format"),
    "theme": _chat("[NAME]", "change the colours", "theme"),
    "graphics": _chat("[WAY]", "change how pictures are shown", "graphics"),
    "help": _chat("", "show all keys and commands (also ?)"),
    "quit": _chat("", "leave; everything is kept"),
}  # fmt: skip
"""All of them, in the order of the help."""


def read_command(line: str) -> Typed:
    """Return the command that a line begins with.

    Raises:
        SettingsError: there is no such command.
    """
    name, _, rest = line.removeprefix("/").partition(" ")
    name = name.lower()
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise SettingsError(f"no command /{name}; {hint}")
    return Typed(name, rest.strip())
