from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from textual.content import Content

from mmgen_chat.safe_text import escape_markup, one_line, printable


@given(st.text())
def test_nothing_printable_commands_a_terminal(text: str) -> None:
    for character in printable(text):
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("\x1b[2J\x1b[31mred", "␛[2J␛[31mred"),
        ("a\x9b31mb", "a<U+009B>31mb"),
        ("abc\rxyz", "abc\nxyz"),
        ("one\r\ntwo", "one\ntwo"),
        ("\u202egnp.exe", "<U+202E>gnp.exe"),
        ("half \ud83d", "half \ufffd"),
        ("del\x7f", "del␡"),
        ("Grüße, 世界 👋🏽\t!", "Grüße, 世界 👋🏽\t!"),
    ],
)
def test_what_is_seen_of_harmful_text(text: str, seen: str) -> None:
    assert printable(text) == seen


def test_a_line_is_one_line_of_bounded_length() -> None:
    assert one_line("  two\n\twords \n") == "two words"
    assert one_line("a long title", max_length=7) == "a long…"
    assert one_line("a\u2028b") == "a<U+2028>b"


@given(st.text(alphabet="[]\\/aB1$@#= .'\"(-!?:\n"))
@example("[bold red]x[/]")
@example("[@click=app.quit]press me[/]")
@example("\\")
def test_markup_is_shown_as_it_stands(text: str) -> None:
    shown = Content.from_markup(f"{escape_markup(text)}[b]end[/b]")
    assert shown.plain.replace("\u200b", "") == f"{text}end"
    assert [span.style for span in shown.spans] == ["b"]
