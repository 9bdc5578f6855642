from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mmgen.batch.assembly import Job, run_job
from mmgen.batch.log import Fault, Record
from mmgen.batch.page import write_page
from mmgen.batch.statistics import NUM_BINS, statistics_of
from mmgen.batch.tasks.generate import GenerateSettings


def records() -> Iterator[Record]:
    for row in range(100):
        if row % 10 == 9:
            fault = Fault(kind="PictureError", reason=f"<b>row {row}</b>", attempts=1)
            yield Record(row=row, id=str(row), fault=fault)
        else:
            fields = {
                "caption": "word " * (row % 4 + 1),
                "tokens": row,
                "seed": 2**52 + row,
                "flag": True,
                "end": "length" if row % 3 else "end",
                "same": 5,
            }
            yield Record(row=row, id=str(row), fields=fields)


def test_numbers_are_counted_in_bins_and_texts_by_value() -> None:
    found = statistics_of(records, "caption")
    assert (found.num_answered, found.num_failed) == (90, 10)
    by_name = {item.name: item for item in found.histograms}
    assert by_name.keys() == {"words of caption", "tokens"}
    words, tokens = by_name["words of caption"], by_name["tokens"]
    assert (words.low, words.high, sum(words.counts)) == (1, 4, 90)
    assert sum(1 for count in words.counts if count) == 4
    rows = [row for row in range(100) if row % 10 != 9]
    assert (tokens.low, tokens.high, tokens.mean) == (0, 98, sum(rows) / 90)
    width = 98 / NUM_BINS
    expected = [
        sum(place * width <= row < (place + 1) * width for row in rows) for place in range(NUM_BINS)
    ]
    expected[-1] += 1
    assert list(tokens.counts) == expected
    assert found.values == {"end": {"length": 60, "end": 30}}
    assert found.faults == {"PictureError": 10} and len(found.examples) == 10


def test_nothing_answered_is_a_page_too(tmp_path: Path) -> None:
    found = statistics_of(lambda: iter(()), "caption")
    write_page(tmp_path, "a job", found, lambda: iter(()), words="caption", num_rows=3)
    assert "still to do" in (tmp_path / "report.html").read_text()


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]


def test_what_rows_say_is_text_and_never_markup(tmp_path: Path) -> None:
    def hostile() -> Iterator[Record]:
        fields = {"caption": "<script>alert(1)</script>", "tokens": 1}
        yield Record(row=0, id='"><img src=x>', fields=fields)
        yield from list(records())[1:]

    found = statistics_of(hostile, "caption")
    write_page(tmp_path, "<i>", found, hostile, words="caption", num_rows=100)
    links = Links()
    links.feed((tmp_path / "report.html").read_text())
    assert not {"script", "img", "i", "b"} & set(links.tags)


def test_a_finished_job_has_a_page_and_a_sheet(
    make_job: Callable[..., Job], prompts: Path, tmp_path: Path
) -> None:
    with prompts.open("a") as file:
        file.write(json.dumps({"prompt": " "}) + "\n")
    settings = GenerateSettings(size=(32, 32))
    job = make_job(prompts, settings=settings, forms=("files",))
    run_job(job)
    folder = job.directory.path
    links = Links()
    links.feed((folder / "report.html").read_text())
    assert len(links.sources) == 20
    assert all((folder / source).is_file() for source in links.sources)
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 800 and sheet.height > 64
    content = json.loads((folder / "report.json").read_text())
    assert content["failed"] == 1 and content["histograms"][0]["name"] == "guidance"
    assert sum(content["histograms"][0]["counts"]) == 20


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_packed_pictures_are_not_shown(
    make_job: Callable[..., Job], prompts: Path, form: str
) -> None:
    job = make_job(prompts, forms=(form,))
    run_job(job)
    links = Links()
    links.feed((job.directory.path / "report.html").read_text())
    assert not links.sources and not (job.directory.path / "sheet.png").exists()
