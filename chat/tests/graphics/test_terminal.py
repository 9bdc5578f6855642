"""Which way of showing pictures is chosen, from what a terminal and its environment say."""

from __future__ import annotations

import pytest

from mmgen_chat.graphics.probe import read_answers
from mmgen_chat.graphics.terminal import Answers, decide

TRUE = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "en_GB.UTF-8"}
KITTY = Answers(name="kitty(0.40.1)", has_kitty=True, cell=(9, 18))
SIXEL = Answers(name="foot(1.18.1)", attributes=frozenset({4, 22}), cell=(9, 18))


@pytest.mark.parametrize(
    ("answers", "environment", "expected"),
    [
        (KITTY, TRUE, "kitty"),
        (Answers(name="ghostty 1.2.0", has_kitty=True), TRUE, "kitty"),
        (Answers(name="kitty(0.26.5)", has_kitty=True), TRUE, "half-block"),
        # Konsole speaks kitty's protocol without placeholders.
        (
            Answers(name="Konsole 24.12", has_kitty=True, attributes=frozenset({4}), cell=(8, 16)),
            TRUE,
            "sixel",
        ),
        (Answers(name="WezTerm 2025", has_kitty=True, attributes=frozenset({4})), TRUE, "iterm2"),
        (Answers(name="iTerm2 3.5.0"), TRUE, "iterm2"),
        (SIXEL, TRUE, "sixel"),
        # Without the size of a cell nobody knows how many pixels fit.
        (Answers(name="XTerm(379)", attributes=frozenset({4})), TRUE, "half-block"),
        (Answers(), TRUE, "half-block"),
        # The number of a picture is spelled by 24 bits of colour.
        (KITTY, {"TERM": "xterm-kitty", "LANG": "C.UTF-8"}, "half-block"),
        (SIXEL, {**TRUE, "NO_COLOR": "1"}, "ascii"),
        (SIXEL, {**TRUE, "LANG": "C"}, "ascii"),
        (Answers(), {**TRUE, "TERM": "dumb"}, "ascii"),
        (KITTY, {**TRUE, "TMUX": "/tmp/x"}, "half-block"),
        (Answers(name="iTerm2 3.5.0"), {**TRUE, "TMUX": "/tmp/x"}, "half-block"),
    ],
)
def test_the_best_way_that_surely_works_is_taken(
    answers: Answers, environment: dict[str, str], expected: str
) -> None:
    assert decide(answers, environment).graphics == expected


def test_tmux_that_hands_on_shows_pictures_of_the_terminal_around_it() -> None:
    terminal = decide(KITTY, {**TRUE, "TMUX": "/tmp/x"}, passes_through=True)
    assert terminal.graphics == "kitty" and terminal.in_tmux


def test_what_the_user_wants_is_not_questioned() -> None:
    assert decide(Answers(), TRUE, wanted="sixel").graphics == "sixel"
    assert decide(KITTY, TRUE, wanted="ascii").graphics == "ascii"


@pytest.mark.parametrize(
    ("environment", "colors"),
    [
        (TRUE, "truecolor"),
        ({"TERM": "xterm-direct"}, "truecolor"),
        ({"TERM": "screen-256color"}, "256"),
        ({"TERM": "xterm"}, "16"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "none"),
    ],
)
def test_the_number_of_colours(environment: dict[str, str], colors: str) -> None:
    assert decide(Answers(), environment).colors == colors


def test_answers_are_read_from_a_reply() -> None:
    reply = (
        "\x1b_Gi=31;OK\x1b\\\x1bP>|tmux 3.5a\x1b\\\x1bP>|kitty(0.40.1)\x1b\\"
        "\x1b[6;18;9t\x1b[?62;4;22c"
    )
    assert read_answers(reply) == Answers(
        name="kitty(0.40.1)", attributes=frozenset({62, 4, 22}), has_kitty=True, cell=(9, 18)
    )


def test_a_terminal_that_lies_or_keeps_silent_is_a_plain_one() -> None:
    assert read_answers("") == Answers()
    assert read_answers("garbage\x1b[6;0;0t\x1b_Gi=31;EINVAL:no\x1b\\\x1b[?c") == Answers()
