from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chat_objects import drawn, exchange, png
from markdown_it import MarkdownIt

from mmgen.errors import OutputError, SettingsError
from mmgen_chat.conversation import Conversation, Picture, Turn, Words
from mmgen_chat.export import export, to_html

HOSTILE = "<script>alert(1)</script> & <img src=http://spy.example/x onerror=alert(2)> \x1b[2J"


def conversation() -> Conversation:
    attached = Picture(png=png(colour="blue"), size=(4, 6), source='sea"><b>.png', alt='"><i>sea')
    asked = Turn(role="user", segments=(attached, Words("*what* is # this?\nA _sea_? " + HOSTILE)))
    talk = Conversation(title="Sea & <b>sky</b>").with_turn(asked)
    answer = Turn(
        role="assistant",
        parent_id=asked.id,
        segments=(
            Words("A **sea**. " + HOSTILE + "\n\n![x](http://spy.example/y.png)\n\n"),
            drawn(prompt="a <u>red</u> apple"),
            Words("[press](javascript:alert(3)) `a < b`"),
        ),
    )
    talk = talk.with_turn(answer)
    broken = replace(answer, id="b", segments=(Words("The"),), state="failed", failure="it <died>")
    return talk.with_turn(broken).with_leaf(answer.id)


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_harmless(page: Page, place: str) -> None:
    assert not {"script", "iframe", "b", "i", "u"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        assert not (attributes.get("href") or "").startswith("javascript")
        if tag == "img":
            assert (attributes["src"] or "").startswith(place)
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text and "␛[2J" in page.text


def test_one_page_holds_everything_and_runs_nothing(tmp_path: Path) -> None:
    path = export(conversation(), "html", tmp_path)
    assert path == tmp_path / "sea-b-sky-b.html"
    page = Page(path.read_text(encoding="utf-8"))
    check_harmless(page, "data:image/png;base64,")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == ['"><i>sea', "an apple"]
    assert "strong" in {tag for tag, _ in page.tags}
    assert "“a <u>red</u> apple” · mini · seed 7 · 16 tokens · 1.5 s · guidance 3" in page.text
    assert "one of 2 versions" in page.text
    assert "*what* is # this?\nA _sea_?" in page.text


def test_markdown_with_a_folder_of_pictures(tmp_path: Path) -> None:
    path = export(conversation(), "md", tmp_path)
    folder = tmp_path / "sea-b-sky-b-pictures"
    names = sorted(item.name for item in folder.iterdir())
    assert names == ["001-sea-b.png", "002-a-u-red-u-apple.png"]
    assert (folder / names[0]).read_bytes() == png(colour="blue")
    text = path.read_text(encoding="utf-8")
    # As a viewer would that lets HTML through.
    page = Page(MarkdownIt("commonmark", {"html": True}).render(text))
    check_harmless(page, f"{folder.name}/")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["src"] for image in images] == [f"{folder.name}/{name}" for name in names]
    assert [image["alt"] for image in images] == ['"><i>sea', "an apple"]
    assert "*what* is # this?\nA _sea_?" in page.text
    assert [tag for tag, _ in page.tags].count("h2") == 2
    assert "strong" in {tag for tag, _ in page.tags}


def test_what_broke_off_is_marked() -> None:
    talk = conversation().with_leaf("b")
    page = Page(to_html(talk))
    assert "broke off: it <died>" in page.text
    growing = exchange(Conversation(), "draw", replace(drawn(num_done=5), png=None))
    assert "unfinished: 5 of 16 tokens · 1.5 s · guidance 3 (not rendered)" in to_html(growing)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    talk = conversation()
    paths = [export(talk, kind, tmp_path) for kind in ("md", "html", "md")]
    assert [path.name for path in paths] == [
        "sea-b-sky-b.md", "sea-b-sky-b-2.html", "sea-b-sky-b-2.md"
    ]  # fmt: skip
    named = export(talk, "html", tmp_path / "new" / "page.html")
    assert named.is_file()
    with pytest.raises(OutputError, match="there already"):
        export(talk, "html", named)
    with pytest.raises(OutputError, match=r"does not end in \.md"):
        export(talk, "md", named)
    with pytest.raises(SettingsError, match="md or html"):
        export(talk, "pdf", None)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        export(talk, "html", tmp_path / "file" / "page.html")
