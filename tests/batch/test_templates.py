from __future__ import annotations

from typing import Any

import pytest

from mmgen.batch.rows import FilePicture, Row
from mmgen.batch.templates import Template, named_templates, values_of
from mmgen.errors import SettingsError


def test_fields_are_put_in_and_braces_stay() -> None:
    template = Template("a {kind} of {size} {{cm}}, {tags}")
    assert template.fields == ("kind", "size", "tags")
    values = {"kind": "fox", "size": 3, "tags": ["red", "wild"]}
    assert template.fill(values) == "a fox of 3 {cm}, red, wild"
    assert Template("no places").fill({}) == "no places"


def test_what_a_field_holds_is_not_looked_at_again() -> None:
    assert Template("{a}").fill({"a": "{b} {{"}) == "{b} {{"


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("{title}", {"a": 1}, "names the field 'title', which the row does not have; its.*: a"),
        ("{title}", {}, "its fields are: none"),
        ("{a}", {"a": None}, "names the field 'a', which the row does not have"),
        ("{a}", {"a": {"b": 1}}, "names the field 'a', which holds a dict"),
        ("{a}", {"a": [1]}, "which holds a list"),
    ],
)
def test_what_cannot_be_filled_is_told(text: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Template(text).fill(values)


@pytest.mark.parametrize("text", ["{", "a } b", "{}", "{a!r}", "{a:>3}", "{0:{1}}"])
def test_bad_templates_are_refused_at_once(text: str) -> None:
    with pytest.raises(SettingsError, match="the template"):
        Template(text)


def test_attributes_of_python_cannot_be_reached() -> None:
    with pytest.raises(SettingsError, match="which the row does not have"):
        Template("{a.__class__}").fill({"a": 1})
    assert Template("{a.b}").fill({"a.b": "a dotted field"}) == "a dotted field"


def test_several_prompts_have_names() -> None:
    found = named_templates(["short=what is this?", "long=say more = all of {id}"])
    assert {name: item.text for name, item in found.items()} == {
        "short": "what is this?",
        "long": "say more = all of {id}",
    }
    assert list(named_templates(["is 1 + 1 = 2?"])) == ["caption"]
    assert named_templates([]) == {}
    with pytest.raises(SettingsError, match="need a name each"):
        named_templates(["short=a", "b"])
    with pytest.raises(SettingsError, match="two prompts are called 'a'"):
        named_templates(["a=b", "a=c"])
    with pytest.raises(SettingsError, match="the prompt is empty"):
        named_templates(["a= "])


def test_a_row_tells_its_id_and_where_its_picture_lies() -> None:
    picture = FilePicture("some/cats/tom.small.png")
    row = Row(index=0, id="x", fields={"title": "t", "folder": "own"}, picture=picture)
    assert values_of(row) == {"id": "x", "name": "tom.small", "folder": "own", "title": "t"}
    assert values_of(Row(index=0, id="x", picture=picture))["folder"] == "cats"
