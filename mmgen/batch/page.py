"""A page to look at a job with: its numbers as bars, its errors, and its first pictures.

One file of HTML without scripts, which finds the pictures beside it; and the same pictures as one
contact sheet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path

from mmgen.batch.log import Record
from mmgen.batch.statistics import Histogram, Statistics
from mmgen.errors import PictureError
from mmgen.pictures import atomic_file, open_picture, save_png, sheet

__all__ = ["MAX_SHOWN", "write_page", "write_sheet"]

MAX_SHOWN = 200
"""Rows that are shown one by one."""
SHEET_COLUMNS = 10
MAX_SIDE = 128
"""Longest side of a picture on the sheet, in pixels."""

_STYLE = """\
:root { color-scheme: light dark; --line: #8884; --bar: #4a7fd4; --bad: #c33 }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p.sub { margin: .2rem 0 1rem; opacity: .7 }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; margin: 1rem 0 }
dt { font-size: .8rem; opacity: .7 } dd { margin: 0; font-size: 1.4rem }
dd.bad { color: var(--bad) }
.bars { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0 } figcaption { font-size: .85rem }
svg { display: block; border-bottom: 1px solid var(--line) } svg rect { fill: var(--bar) }
.ends { display: flex; justify-content: space-between; font-size: .75rem; opacity: .7 }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
td, th { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
td.n { text-align: right; white-space: nowrap }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem }
.sheet img { width: 100%; image-rendering: auto; border: 1px solid var(--line) }
.sheet figcaption { font-size: .75rem; overflow-wrap: anywhere }
"""


def write_page(
    folder: Path,
    title: str,
    found: Statistics,
    records: Callable[[], Iterator[Record]],
    *,
    words: str,
    num_rows: int,
) -> None:
    """Write `report.html` into a job directory.

    Args:
        title: what the job does.
        records: yields all records in order.
        words: the field that is a result's text.
        num_rows: rows of the whole job.
    """
    shown = list(itertools.islice(_answered(records()), MAX_SHOWN))
    parts = [
        "<!doctype html>\n<html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}: {escape(folder.name)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(folder.name)}</h1><p class=sub>{escape(title)}</p>",
        _counts(found, num_rows),
        _section("Numbers", "bars", [_histogram(item) for item in found.histograms]),
        _section("Values", "bars", [_values(*item) for item in found.values.items()]),
        _errors(found),
        _results(shown, words, found.num_answered),
    ]
    with atomic_file(folder / "report.html") as partial:
        partial.write_text("\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def write_sheet(folder: Path, records: Iterator[Record], words: str) -> bool:
    """Write the first pictures as `sheet.png`; return whether there are any."""
    pictures, labels = [], []
    for record in itertools.islice(_pictured(records), MAX_SHOWN // 2):
        try:
            picture = open_picture(folder / record.pictures[0])
        except PictureError:
            # A user may have moved it; the sheet is for looking only.
            continue
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
        pictures.append(picture)
        labels.append(str(record.fields.get(words, record.id)))
    if pictures:
        save_png(sheet(pictures, labels, SHEET_COLUMNS), folder / "sheet.png")
    return bool(pictures)


def _answered(records: Iterator[Record]) -> Iterator[Record]:
    return (record for record in records if record.fault is None)


def _pictured(records: Iterator[Record]) -> Iterator[Record]:
    return (record for record in _answered(records) if _kept(record))


def _kept(record: Record) -> list[str]:
    """Return the pictures that stay as files."""
    return [path for path in record.pictures if not path.startswith("spool/")]


def _counts(found: Statistics, num_rows: int) -> str:
    left = num_rows - found.num_answered - found.num_failed
    facts = [("rows", num_rows, ""), ("answered", found.num_answered, "")]
    facts.append(("failed", found.num_failed, "bad" if found.num_failed else ""))
    if left:
        facts.append(("still to do", left, ""))
    cells = (
        f'<div><dt>{name}</dt><dd class="{kind}">{value:,}</dd></div>'
        for name, value, kind in facts
    )
    return f"<dl>{''.join(cells)}</dl>"


def _section(title: str, kind: str, items: list[str]) -> str:
    return f"<h2>{title}</h2><div class={kind}>{''.join(items)}</div>" if items else ""


def _histogram(item: Histogram) -> str:
    most = max(item.counts)
    width, height = 240, 80
    step = width / len(item.counts)
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{height * (1 - count / most):.1f}" '
        f'width="{step - 1:.1f}" height="{height * count / most:.1f}">'
        f"<title>{count:,}</title></rect>"
        for place, count in enumerate(item.counts)
        if count
    )
    return (
        f"<figure><figcaption>{escape(item.name)}, mean {item.mean:.4g}</figcaption>"
        f'<svg width={width} height={height} role=img aria-label="{escape(item.name)}">{bars}</svg>'
        f"<div class=ends><span>{item.low:.4g}</span><span>{item.high:.4g}</span></div></figure>"
    )


def _values(name: str, counts: Mapping[str, int]) -> str:
    rows = "".join(
        f"<tr><td>{escape(value)}</td><td class=n>{count:,}</td></tr>"
        for value, count in counts.items()
    )
    return f"<figure><figcaption>{escape(name)}</figcaption><table>{rows}</table></figure>"


def _errors(found: Statistics) -> str:
    if not found.faults:
        return ""
    kinds = ", ".join(f"{count:,} {escape(kind)}" for kind, count in found.faults.items())
    rows = "".join(
        f"<tr><td>{escape(id_)}</td><td>{escape(kind)}</td><td>{escape(reason)}</td></tr>"
        for id_, kind, reason in found.examples
    )
    head = "<tr><th>id</th><th>error</th><th>reason</th></tr>"
    return (
        f"<h2>Without an answer</h2><p class=sub>{kinds}; all are in errors.jsonl</p>"
        f"<table>{head}{rows}</table>"
    )


def _results(shown: list[Record], words: str, num_answered: int) -> str:
    if not shown:
        return ""
    more = f"<p class=sub>the first {len(shown):,} of {num_answered:,}</p>"
    if any(map(_kept, shown)):
        figures = "".join(_figure(record, words) for record in shown)
        return f"<h2>Pictures</h2>{more}<div class=sheet>{figures}</div>"
    rows = "".join(
        f"<tr><td>{escape(record.id)}</td><td>{escape(str(record.fields.get(words, '')))}</td></tr>"
        for record in shown
    )
    return f"<h2>Results</h2>{more}<table>{rows}</table>"


def _figure(record: Record, words: str) -> str:
    images = "".join(
        f'<a href="{escape(path)}"><img loading=lazy src="{escape(path)}" alt=""></a>'
        for path in _kept(record)
    )
    text = escape(str(record.fields.get(words, "")))
    return f"<figure>{images}<figcaption>{escape(record.id)}<br>{text}</figcaption></figure>"
