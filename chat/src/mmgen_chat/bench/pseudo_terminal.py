"""A program in a pseudo-terminal: keys go in, and the moment is noted when something comes out."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mmgen.errors import SettingsError
from mmgen_chat.errors import ChatError

__all__ = ["COLUMNS", "ROWS", "ProgramInTerminal"]

COLUMNS, ROWS = 100, 30

_ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=$]*[ -/]*[@-~]|[\]PX^_].*?(\x1b\\|\x07)|.)", re.DOTALL)


class ProgramInTerminal:
    """A program that believes it has the screen."""

    def __init__(
        self, words: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a program.

        Args:
            folder: its home and its current folder.
            environment: what it is given besides that of this process.

        Raises:
            SettingsError: this system has no pseudo-terminals.
        """
        if sys.platform == "win32":
            raise SettingsError(
                "the chat is measured in a pseudo-terminal, which this system lacks"
            )
        import pty
        import termios

        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (ROWS, COLUMNS))
        # The terminal itself must not echo: what comes back shall come from the program.
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        own = {name: value for name, value in os.environ.items() if name not in _REPLACED}
        own |= {
            "HOME": str(folder),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LC_ALL": "C.UTF-8",
            **(environment or {}),
        }
        self._seen = bytearray()
        self._mark = 0
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=own,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def press(self, text: str) -> float:
        """Press keys; return when. What `until` looks for has to come after this."""
        self._mark = len(self._seen)
        now = time.perf_counter()
        os.write(self._master, text.encode())
        return now

    def until(self, pattern: bytes, seconds: float = 120.0) -> float:
        """Wait until a pattern was written since the last keys; return when it was.

        Raises:
            ChatError: the program ended before, or it did not come in time.
        """
        wanted = re.compile(pattern)
        end = time.perf_counter() + seconds
        while wanted.search(self._seen, self._mark) is None:
            if not self._read(end - time.perf_counter()):
                raise ChatError(
                    f"the program did not write {pattern.decode()!r}; its last words are "
                    f"{self.last_words!r}"
                )
        return time.perf_counter()

    def has_written(self, pattern: bytes, since: int) -> bool:
        """Return whether a pattern was written since some byte of the output."""
        return re.search(pattern, self._seen[since:]) is not None

    @property
    def num_bytes(self) -> int:
        """Bytes written so far."""
        return len(self._seen)

    def rest(self, seconds: float) -> None:
        """Let the program run on, reading what it writes."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0 and self._read(left):
            pass

    def run_out(self, seconds: float) -> int:
        """Wait until the program has ended; return its exit status."""
        end = time.perf_counter() + seconds
        while self._process.poll() is None and time.perf_counter() < end:
            if not self._read(0.2):
                time.sleep(0.01)
        if self._process.poll() is None:
            raise ChatError(f"the program did not end within {seconds:.0f} s")
        return self._process.returncode

    @property
    def last_words(self) -> str:
        """The end of what was written, without what commands the terminal."""
        text = bytes(self._seen[-4000:]).decode("utf-8", errors="replace")
        return " ".join(_ESCAPES.sub(" ", text).split())[-300:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        """Read what comes within some time; return whether anything did."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            # Linux says so when the program has closed its side.
            return False
        self._seen += data
        return bool(data)


_REPLACED = {
    "COLUMNS", "LINES", "NO_COLOR", "TMUX", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
}  # fmt: skip
