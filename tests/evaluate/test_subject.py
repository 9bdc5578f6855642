"""A real session, with an untrained model, as evaluation asks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmgen.errors import SettingsError
from mmgen.evaluate.pack import EmojiRow
from mmgen.evaluate.subject import SessionSubject


@pytest.fixture(scope="module")
def subject(tiny_checkpoint: Path) -> SessionSubject:
    return SessionSubject.open(str(tiny_checkpoint))


def test_defaults_come_from_the_checkpoint(subject: SessionSubject) -> None:
    assert subject.guidance_scale == 2.0
    assert subject.tokenizer_name == "palette"
    assert subject.tokenizer.spec.codebook_sizes == (256,)


def test_drawings_come_in_order_and_depend_on_their_own_seed(subject: SessionSubject) -> None:
    together = subject.draw(["a", "b", "c"], seeds=[5, 6, 7], guidance_scale=1.5)
    alone = subject.draw(["b"], seeds=[6], guidance_scale=1.5)
    assert together[0].size == (64, 64)
    assert together[1].tobytes() == alone[0].tobytes()
    assert len({picture.tobytes() for picture in together}) == 3


def test_answers_come_in_order_and_are_repeatable(
    subject: SessionSubject, rows: list[EmojiRow]
) -> None:
    pictures = [row.open() for row in rows[::12]]
    answers = subject.ask(pictures, "what is this?")
    assert len(answers) == 3
    assert subject.ask(pictures[::-1], "what is this?") == answers[::-1]


def test_a_request_that_cannot_be_served_is_an_error(subject: SessionSubject) -> None:
    with pytest.raises(SettingsError, match="empty"):
        subject.draw([" "], seeds=[0], guidance_scale=1.0)
