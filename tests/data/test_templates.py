"""Documents made of rows: fluent forms, known answers, balanced yes and no, fixed by the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from PIL import Image as PilImage

from mmgen.data.kinds import CLASSES, GROUP_FORMS, group_form, sort_of, with_article
from mmgen.data.phrases import joined, prompt, sentence
from mmgen.data.questions import QUESTIONS, Question, Subject, name_question
from mmgen.data.shapes import ShapesSource
from mmgen.data.templates import TEMPLATES, Scene
from mmgen.document import Document, Image, Text

APPLE = {
    "name": "red apple",
    "phrase": "a red apple",
    "style": "Noto",
    "visual": "softly shaded colors",
    "kind": "food-drink",
    "subkind": "food-fruit",
}
CAT = {"name": "cat", "style": "Twemoji", "kind": "animals-nature", "subkind": "animal-mammal"}
BUS = {"name": "bus", "style": "Noto", "kind": "travel-places", "subkind": "transport-ground"}
CAPTIONS = ("A Noto emoji of a red apple.",)


def scene(attributes: Mapping[str, str] = APPLE, **changes: Any) -> Scene:
    settings: dict[str, Any] = {
        "attributes": attributes,
        "captions": CAPTIONS,
        "picture": PilImage.new("RGB", (8, 8), (220, 30, 30)),
        "shown": PilImage.new("RGB", (8, 8), (210, 30, 30)),
        "colours": {"red": 0.8, "green": 0.2},
        "others": [APPLE, CAT, BUS],
        "tokenizer": "palette",
    }
    return Scene(**(settings | changes))


def asked(kind: str, where: Scene, count: int = 200) -> list[Question]:
    subject: Subject = where.subject
    results = (QUESTIONS[kind][0](subject, Random(seed)) for seed in range(count))
    return [result for result in results if result is not None]


def answers(kind: str, where: Scene) -> set[str]:
    return {answer for _, answer in asked(kind, where)}


def texts(document: Document) -> list[tuple[str, str]]:
    return [
        (turn.role, "".join(item.text for item in turn.segments if isinstance(item, Text)))
        for turn in document.turns
    ]


def pictures(document: Document) -> list[tuple[str, object]]:
    return [
        (turn.role, item.picture)
        for turn in document.turns
        for item in turn.segments
        if isinstance(item, Image)
    ]


def test_prompts_take_many_forms() -> None:
    prompts = [prompt(APPLE, CAPTIONS, ["red"], Random(seed)) for seed in range(600)]
    counts = Counter(prompts)
    for usual in (
        "a red apple",
        "draw a red apple",
        "a red apple, Noto style",
        "draw a red apple, Noto style",
        "draw a red apple in Noto style",
        "red apple",
        "draw a Noto emoji of a red apple",
        "draw a fruit, Noto style",
    ):
        assert counts[usual] >= 1, usual
    assert counts["draw a red apple, Noto style"] > 20
    assert len(counts) > 80
    assert not any("  " in text or text.endswith("..") for text in counts)


def test_prompts_of_people_name_the_skin_tone() -> None:
    person = {"phrase": "an elf", "tone": "dark", "kind": "people-body", "subkind": "person"}
    prompts = [prompt(person, (), [], Random(seed)) for seed in range(100)]
    assert 55 < sum("an elf with dark skin tone" in text for text in prompts) < 95


def test_prompts_of_shapes_use_what_is_known() -> None:
    source = ShapesSource(0, 100)
    prompts = " | ".join(
        prompt(source.attributes(index), (), [], Random(index)) for index in range(100)
    )
    assert " in the top left" in prompts
    assert " background" in prompts


def test_prompts_fall_back_on_captions() -> None:
    prompts = {prompt({}, ("A dog on a beach.",), [], Random(seed)) for seed in range(50)}
    assert {"draw a dog on a beach", "a dog on a beach"} <= prompts
    kept = {prompt({}, ("McDonald has a farm.",), [], Random(seed)) for seed in range(20)}
    assert "draw McDonald has a farm" in kept


def test_quotes_are_those_of_keyboards() -> None:
    clock = {"name": "two o\u2019clock"}
    assert "what is" not in prompt(clock, (), [], Random(0))
    assert all("\u2019" not in prompt(clock, (), [], Random(seed)) for seed in range(30))


def test_answers_are_true() -> None:
    assert answers("name", scene()) == {
        "A red apple.",
        "It shows a red apple.",
        "I see a red apple.",
    }
    assert "Noto style." in answers("style", scene())
    assert all("Noto" in answer for answer in answers("style", scene()))
    assert answers("group", scene()) == {"Food or a drink.", "It is food or a drink."}
    assert answers("sort", scene()) == {"A fruit."}
    assert answers("describe", scene()) == {CAPTIONS[0]}
    assert answers("colour", scene()) == {"Red.", "Red and green."}


def test_the_usual_questions_are_usual() -> None:
    names = Counter(question.lower().rstrip("?") for question, _ in asked("name", scene()))
    assert names.most_common(1)[0][0] == "what is this"
    groups = Counter(question.lower().rstrip("?") for question, _ in asked("group", scene()))
    assert groups.most_common(1)[0][0] == "what kind of thing is this"


@pytest.mark.parametrize("kind", ["is_class", "is_name", "is_style", "is_colour"])
def test_yes_and_no_are_balanced_and_right(kind: str) -> None:
    true_words = {
        "is_class": ("food", "fruit"),
        "is_name": ("red apple",),
        "is_style": ("Noto",),
        "is_colour": ("red", "green"),
    }[kind]
    results = asked(kind, scene(), 400)
    is_yes = [answer.startswith("Yes") for _, answer in results]
    assert 0.38 < sum(is_yes) / len(is_yes) < 0.62
    for (question, answer), yes in zip(results, is_yes, strict=True):
        assert answer.startswith(("Yes", "No"))
        assert any(word in question for word in true_words) == yes, question


def test_what_is_unclear_is_not_asked() -> None:
    for where in (scene(), scene(CAT), scene(BUS)):
        sort = sort_of(where.attributes)
        assert sort is not None
        for question, answer in asked("is_class", where, 300):
            names = {name for name, noun in CLASSES.items() if question.rstrip("?").endswith(noun)}
            if answer.startswith("No"):
                assert not names & {*sort.is_in, *sort.unclear}


def test_nothing_is_asked_that_is_not_known() -> None:
    bare = scene({}, captions=("A dog.",), colours={}, others=[])
    known = {kind for kind in QUESTIONS if asked(kind, bare, 20)}
    assert known == {"name", "describe"}


def test_shapes_are_asked_about() -> None:
    source = ShapesSource(0, 50)
    index = next(index for index in range(50) if "size" in source.attributes(index))
    attributes = source.attributes(index)
    where = scene(attributes)
    assert answers("count", where) == {"One."}
    assert answers("shape", where) == {sentence(attributes["shape"])}
    assert answers("size", where) == {sentence(attributes["size"])}
    assert answers("position", where) == {f"In the {attributes['position']}."}
    assert answers("background", where) == {sentence(attributes["background"])}
    assert answers("colour", where) == {sentence(attributes["colour"])}


def test_draw_documents() -> None:
    where = scene()
    for seed in range(100):
        document = TEMPLATES["draw"](where, Random(seed))
        assert pictures(document) == [("assistant", where.picture)]
        roles = [turn.role for turn in document.turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_describe_documents() -> None:
    where = scene()
    lengths = set()
    for seed in range(100):
        document = TEMPLATES["describe"](where, Random(seed))
        assert pictures(document) == [("user", where.shown)]
        said = texts(document)
        assert all(text for _, text in said)
        lengths.add(len(said) // 2)
        questions = [text for role, text in said if role == "user"]
        assert len(set(questions)) == len(questions)
    assert lengths == {1, 2, 3, 4}


def test_name_documents_ask_for_the_name_alone() -> None:
    where = scene()
    orders = set()
    for seed in range(100):
        document = TEMPLATES["name"](where, Random(seed))
        assert pictures(document) == [("user", where.shown)]
        assert texts(document) == list(
            zip(("user", "assistant"), name_question(where.subject, Random(seed)), strict=True)
        )
        orders.add(tuple(type(item) for item in document.turns[0].segments))
    assert orders == {(Image, Text), (Text, Image)}


def test_mixed_documents_do_not_ask_for_the_name() -> None:
    where = scene()
    for seed in range(100):
        document = TEMPLATES["mixed"](where, Random(seed))
        assert pictures(document) == [("assistant", where.picture)]
        assert len(document.turns) >= 4
        assert not {"A red apple.", "It shows a red apple."} & {text for _, text in texts(document)}


def test_the_seed_decides() -> None:
    where = scene()
    for template in TEMPLATES.values():
        assert template(where, Random("a")) == template(where, Random("a"))
        assert len({str(texts(template(where, Random(seed)))) for seed in range(20)}) >= 10


def test_kinds_of_other_collections_keep_their_name() -> None:
    assert group_form({"kind": "old-building"}) == "an old building"
    assert group_form({"kind": "fruit"}) == GROUP_FORMS["food-drink"]
    assert group_form({}) is None
    assert sort_of({"kind": "old-building"}) is None


def test_small_words() -> None:
    assert [with_article(name) for name in ("cat", "owl", "shoes", "glass", "bus")] == [
        "a cat",
        "an owl",
        "shoes",
        "a glass",
        "a bus",
    ]
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert joined(["a"]) == "a"
    assert sentence("what? yes!") == "What? yes!"
