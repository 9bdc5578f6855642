"""Questions to a terminal, answered by one that the test plays on a pseudo-terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")

CODE = """
import os
from mmgen_chat.graphics.probe import detect
found = detect({"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"})
print("FOUND", found.graphics, *found.cell, flush=True)
"""


def asked(reply: bytes) -> tuple[str, bytes]:
    """Return what a process finds out about a terminal that gives a reply to its questions."""
    main, side = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=side, stdout=side, stderr=subprocess.PIPE
    )
    os.close(side)
    seen = b""

    def play() -> None:
        nonlocal seen
        is_answered = False
        while True:
            try:
                data = os.read(main, 4096)
            except OSError:
                return
            if not data:
                return
            seen += data
            if not is_answered and b"\x1b[c" in seen:
                is_answered = True
                os.write(main, reply)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    assert process.wait(timeout=60) == 0, process.stderr and process.stderr.read()
    assert process.stderr is not None
    process.stderr.close()
    time.sleep(0.1)
    os.close(main)
    thread.join(timeout=5)
    line = next(line for line in seen.decode().splitlines() if "FOUND" in line)
    return line[line.index("FOUND") + 6 :].strip(), seen


def test_a_terminal_with_sixels_is_recognised_and_its_answers_are_eaten() -> None:
    found, seen = asked(b"\x1bP>|foot(1.18)\x1b\\\x1b[6;20;10t\x1b[?62;4c")
    assert found == "sixel 10 20"
    assert b"62;4c" not in seen  # not echoed either


def test_a_terminal_with_kittys_protocol_is_recognised() -> None:
    reply = b"\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.40.1)\x1b\\\x1b[6;18;9t\x1b[?62c"
    assert asked(reply)[0] == "kitty 9 18"


def test_a_silent_terminal_is_a_plain_one() -> None:
    assert asked(b"")[0] == "half-block 10 20"
