from __future__ import annotations

from dataclasses import replace

from chat_objects import drawn, exchange

from mmgen_chat.conversation import Conversation, Turn, Words
from mmgen_chat.dialogue import exchanges, fitting, shown


def said(text: str) -> Turn:
    return Turn(role="user", segments=(Words(text),))


def answered(*segments: Words, state: str = "complete") -> Turn:
    return Turn(role="assistant", segments=segments, state=state)  # type: ignore[arg-type]


def test_what_never_came_to_be_is_not_shown() -> None:
    half = Turn(role="assistant", segments=(Words("Here: "), drawn(num_done=3)), state="stopped")
    nothing = Turn(role="assistant", segments=(drawn(num_done=3),), state="failed")
    turns = (
        said("a"), answered(Words("A")),
        said("b"), nothing,
        said("c"), half,
        said("d"),
        said("e"),
    )  # fmt: skip
    kept = shown(turns)
    assert [turn.text for turn in kept] == ["a", "A", "c", "Here: ", "e"]
    assert kept[3].pictures == ()
    assert [turn.text for turn in shown((said("b"), nothing, said("a")))] == ["a"]


def test_whole_pictures_are_shown() -> None:
    turn = Turn(role="assistant", segments=(drawn(),))
    assert shown((said("a"), turn, said("b")))[1] == turn


def test_the_longest_end_that_fits() -> None:
    turns = (said("aa"), answered(Words("AA")), said("b"), answered(Words("B")), said("cc"))

    def cost(turn: Turn) -> int:
        return len(turn.text)

    for room, texts in {
        8: ["aa", "AA", "b", "B", "cc"],
        7: ["b", "B", "cc"],
        4: ["b", "B", "cc"],
        3: ["cc"],
        0: ["cc"],
    }.items():
        kept, total = fitting(turns, cost, room)
        assert [turn.text for turn in kept] == texts
        assert total == sum(map(len, texts))
    assert [len(group) for group in exchanges(turns)] == [2, 2, 1]


def test_branches_of_a_conversation() -> None:
    talk = exchange(exchange(Conversation(), "a", Words("A")), "b", Words("B"))
    a, first, b, second = talk.path()
    other = Turn(role="user", segments=(Words("b2"),), parent_id=first.id)
    edited = talk.with_turn(other)
    assert [turn.text for turn in edited.path()] == ["a", "A", "b2"]
    assert [turn.id for turn in edited.siblings(other.id)] == [b.id, other.id]
    back = edited.beside(other.id, -1)
    assert back.path() == (a, first, b, second)
    assert back.beside(b.id, -1) == back and back.beside(b.id, 1).leaf_id == other.id
    assert edited.with_leaf(None).path() == ()
    again = edited.with_leaf(None).with_turn(said("anew"))
    assert [turn.text for turn in again.path()] == ["anew"]
    assert [turn.text for turn in again.children(None)] == ["a", "anew"]


def test_a_picture_changes_wherever_it_is() -> None:
    picture = drawn()
    talk = exchange(exchange(Conversation(), "a", picture), "b", picture)
    changed = talk.with_picture(replace(picture, alt="a pear"))
    assert [item.alt for item in changed.pictures] == ["a pear", "a pear"]
    assert changed.leaf_id == talk.leaf_id
