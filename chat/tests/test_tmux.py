"""The whole program in a real terminal: tmux types, and reads what is on the screen."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shipped import MINI_CODES

from mmgen.plugins import MODELS, installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.skipif("mini" not in installed(MODELS), reason="the model mini is not installed"),
]


class Tmux:
    """A tmux of its own, with one window."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_started = 0

    @property
    def _socket(self) -> str:
        # Another one each time: the server before may still be on its way out.
        return f"mmgen-{os.getpid()}-{self._folder.name}-{self._num_started}"

    def start(self, *words: str, columns: int = 80, rows: int = 24) -> None:
        """Run the chat."""
        self._num_started += 1
        environment = {
            "HOME": str(self._folder),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
        }
        settings = [
            word for name, value in environment.items() for word in ("-e", f"{name}={value}")
        ]
        program = [sys.executable, "-m", "mmgen", "chat", *words]
        self._run(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows),
            "-c", str(self._folder), *settings, *program,
        )  # fmt: skip
        self._run("set", "-g", "status", "off")
        self._run("set", "-g", "remain-on-exit", "on")

    def type(self, *keys: str) -> None:
        """Press keys, as tmux names them; other words are typed letter by letter."""
        self._run("send-keys", *keys)

    def screen(self, *, is_colored: bool = False) -> str:
        """Return what is on the screen."""
        return self._run("capture-pane", "-p", *(["-e"] if is_colored else []))

    def until(self, is_true: Callable[[str], bool], seconds: float = 60) -> str:
        """Wait until the screen is as wanted; return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = self.screen()
            if is_true(screen):
                return screen
            time.sleep(0.1)
        pytest.fail(f"this did not happen; on the screen is\n{self.screen()}")

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def process_id(self) -> int:
        """Return the id of the chat's process."""
        return int(self._run("display", "-p", "#{pane_pid}"))

    def stop(self) -> None:
        """End everything."""
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True)

    def _run(self, *words: str) -> str:
        # A size in the environment would count for more than that of the terminal.
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
        }
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    tmux = Tmux(tmp_path)
    yield tmux
    tmux.stop()


def test_a_picture_is_drawn_in_half_blocks_in_colour(tmux: Tmux) -> None:
    tmux.start()
    tmux.until(lambda screen: "Say something" in screen)
    tmux.type("draw a red apple", "Enter")
    screen = tmux.until(lambda screen: "shows:" in screen)
    assert "▀▀▀▀▀▀" in screen and f"{MINI_CODES} tokens" in screen
    assert "mini · torch (cpu)" in screen and "context" in screen
    assert "\x1b[38;2;" in tmux.screen(is_colored=True)
    tmux.resize(60, 16)
    tmux.until(lambda screen: "? keys" in (screen.splitlines() or [""])[-1])
    tmux.type("?")
    tmux.until(lambda screen: "Enter" in screen and "send;" in screen)
    tmux.type("q")
    tmux.until(lambda screen: "Say something" in screen)


def test_nothing_is_lost_when_the_chat_is_killed_in_the_middle(tmux: Tmux) -> None:
    tmux.start("--seed", "1")
    tmux.until(lambda screen: "mini · torch" in screen)
    tmux.type("draw a red apple", "Enter")
    tmux.until(lambda screen: "shows:" in screen)
    tmux.type("/n 16", "Enter")
    tmux.type("/draw a smiling face", "Enter")
    tmux.until(lambda screen: f" of {MINI_CODES} tokens" in screen)
    time.sleep(0.1)
    os.kill(tmux.process_id(), signal.SIGKILL)
    tmux.stop()
    tmux.start("--resume")
    tmux.until(lambda screen: "the program ended before the answer" in " ".join(screen.split()))
    for _ in range(4):
        tmux.type("PageUp")
    tmux.until(lambda screen: "draw a red apple" in screen)


def test_a_terminal_too_small_is_refused_in_one_line(tmux: Tmux) -> None:
    tmux.start(columns=30, rows=8)
    screen = tmux.until(lambda screen: "mmgen: error" in screen)
    assert "the terminal has 30x8 cells" in " ".join(screen.split())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        pytest.importorskip(name, reason="the extra serve is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MMGEN_API_KEY": "sesame", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmgen", "serve", "--port", str(port), "--shutdown-seconds", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/v1", process
    process.kill()
    process.wait()


def test_a_server_draws_and_its_death_is_survived(
    tmux: Tmux,
    server: tuple[str, subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    address, process = server
    (tmp_path / "chat.toml").write_text('api_key_env = "CHAT_KEY"\n')
    tmux.start("--endpoint", address, "--settings", str(tmp_path / "chat.toml"))
    screen = tmux.until(lambda screen: "key" in screen.lower() and "no model" in screen)
    assert "sesame" not in screen
    tmux.stop()
    (tmp_path / "chat.toml").write_text('api_key_env = "CHAT_KEY"\n')
    os.environ["CHAT_KEY"] = "sesame"
    try:
        tmux.start("--endpoint", address, "--settings", str(tmp_path / "chat.toml"))
    finally:
        del os.environ["CHAT_KEY"]
    tmux.until(lambda screen: "127.0.0.1" in screen and "loading" not in screen)
    tmux.type("/draw a red apple", "Enter")
    screen = tmux.until(lambda screen: "tokens ·" in screen or " s\n" in screen)
    assert "▀▀▀▀▀▀" in screen
    process.kill()
    process.wait()
    tmux.type("/draw a green apple", "Enter")
    screen = tmux.until(lambda screen: "broke off" in screen)
    assert "/retry" in screen and "sesame" not in screen
