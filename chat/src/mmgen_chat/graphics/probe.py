"""Questions to the terminal, asked before the application takes it over.

All questions go out at once, the one that every terminal answers last; its answer ends the
waiting. A terminal that keeps silent costs one short wait and is taken for a plain one.
"""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from mmgen_chat.graphics.escapes import through_tmux
from mmgen_chat.graphics.terminal import Answers, Graphics, Terminal, decide

__all__ = ["ask", "cell_size", "detect", "read_answers"]

_KITTY_QUESTION = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_NAME_QUESTION = "\x1b[>0q"
_CELL_QUESTION = "\x1b[16t"
_ATTRIBUTES_QUESTION = "\x1b[c"
_WAIT = 1.0
"""Seconds; a slow line over a continent answers in less."""


def detect(environment: Mapping[str, str], *, wanted: Graphics | None = None) -> Terminal:
    """Return how pictures are best shown on the terminal of this process."""
    in_tmux = bool(environment.get("TMUX"))
    answers = Answers()
    if wanted not in ("half-block", "ascii") and environment.get("TERM") not in ("dumb", "linux"):
        answers = ask(in_tmux=in_tmux)
    passes = in_tmux and _tmux_passes_through()
    return decide(answers, environment, wanted=wanted, passes_through=passes)


def cell_size() -> tuple[int, int] | None:
    """Return width and height of a character cell in pixels as the system knows them, if it does.

    Works at any time, since nothing is asked of the terminal.
    """
    if sys.platform == "win32":
        return None
    import fcntl
    import termios

    try:
        packed = fcntl.ioctl(sys.__stdout__ or 1, termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError):
        return None
    rows, columns, width, height = struct.unpack("HHHH", packed)
    cell = (width // columns, height // rows) if rows and columns else (0, 0)
    return cell if min(cell) > 1 else None


def ask(*, in_tmux: bool = False) -> Answers:
    """Ask the terminal at standard input and output what it can do."""
    if sys.platform == "win32" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return Answers()
    import termios
    import tty

    kitty = through_tmux(_KITTY_QUESTION) if in_tmux else _KITTY_QUESTION
    name = through_tmux(_NAME_QUESTION) if in_tmux else _NAME_QUESTION
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSANOW)
        sys.stdout.write(kitty + name + _CELL_QUESTION + _ATTRIBUTES_QUESTION)
        sys.stdout.flush()
        reply = _reply(descriptor, _WAIT)
        if in_tmux and reply:
            # The outer terminal's answers may come after tmux's own.
            reply += _reply(descriptor, 0.15)
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
    answers = read_answers(reply)
    return replace(answers, cell=cell_size() or answers.cell)


def read_answers(reply: str) -> Answers:
    """Return what a terminal's reply says."""
    attributes = re.search(r"\x1b\[\?([0-9;]+)c", reply)
    cell = re.search(r"\x1b\[6;([0-9]{1,4});([0-9]{1,4})t", reply)
    # tmux answers for itself, and the terminal around it once more.
    names = re.findall(r"\x1bP>\|([^\x1b]*)\x1b\\", reply)
    others = [name for name in names if not name.startswith("tmux")]
    size = (int(cell[2]), int(cell[1])) if cell else None
    return Answers(
        name=(others or names or [""])[0],
        attributes=frozenset(map(int, filter(None, attributes[1].split(";"))))
        if attributes
        else frozenset(),
        has_kitty="\x1b_Gi=31;OK" in reply,
        cell=size if size and min(size) > 0 else None,
    )


def _reply(descriptor: int, wait: float) -> str:
    """Return what arrives until the last question is answered or time is up."""
    data, end = b"", time.monotonic() + wait
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        if not ready:
            break
        data += os.read(descriptor, 4096)
        if re.search(rb"\x1b\[\?[0-9;]+c", data):
            break
    return data.decode("utf-8", errors="replace")


def _tmux_passes_through() -> bool:
    command = ["tmux", "show", "-Apv", "allow-passthrough"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() in ("on", "all")
