"""What a job would be, without doing it: counts, and the time that a few rows took."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmgen.batch.assembly import Job
from mmgen.batch.backend import Prepared
from mmgen.batch.results import Answer, Result
from mmgen.batch.rows import Row
from mmgen.batch.survey import checked
from mmgen.errors import MmgenError

__all__ = ["Estimate", "estimate"]

_NUM_TRIED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What to expect of a job."""

    num_rows: int
    num_broken: int
    """Rows of the whole input that cannot be used."""
    num_tried: int
    """Rows that were answered to measure; nothing of them was kept."""
    num_failed: int
    """Those of them without an answer."""
    seconds: float
    """For all rows, at the rate measured."""
    picture_bytes: int
    """Of all pictures that would be written."""
    tokens: int
    """Taken and given for all rows."""


def estimate(job: Job) -> Estimate:
    """Answer the first rows of a job together, and keep nothing but the measures."""
    rows = (
        row
        for row in checked(job.reader.rows(), job.check)
        if row.index in job.rows and isinstance(row, Row)
    )
    tried = list(itertools.islice(rows, _NUM_TRIED))
    keys = itertools.count()
    started = time.perf_counter()
    num_failed = num_bytes = 0
    ids_before = job.backend.num_ids
    for row, answers in _answered(job, tried, keys):
        try:
            found = _finished(job, row, answers, keys)
        except MmgenError:
            num_failed += 1
        else:
            num_bytes += sum(len(picture.data) for picture in found.pictures)
    seconds = time.perf_counter() - started
    share = len(job.rows) / max(len(tried), 1)
    return Estimate(
        num_rows=len(job.rows),
        num_broken=job.survey.num_broken,
        num_tried=len(tried),
        num_failed=num_failed,
        seconds=seconds * share,
        picture_bytes=round(num_bytes * share),
        tokens=round((job.backend.num_ids - ids_before) * share),
    )


def _answered(
    job: Job, rows: list[Row], keys: Iterator[int]
) -> list[tuple[Row, list[Answer | MmgenError]]]:
    """Answer rows together."""
    prepared: list[list[Prepared]] = []
    errors: dict[int, MmgenError] = {}
    for place, row in enumerate(rows):
        prepared.append([])
        try:
            for request in job.task.requests(row):
                prepared[-1].append(job.backend.prepare(next(keys), request))
        except MmgenError as error:
            errors[place] = error
    answers = _wait(job, [item for items in prepared for item in items])
    return [
        (row, [errors[place]] if place in errors else [answers[item.key] for item in items])
        for place, (row, items) in enumerate(zip(rows, prepared, strict=True))
    ]


def _finished(
    job: Job, row: Row, answers: list[Answer | MmgenError], keys: Iterator[int]
) -> Result:
    """Return a row's result, asking as often as it takes."""
    good: list[Answer] = []
    while True:
        for answer in answers:
            if isinstance(answer, MmgenError):
                raise answer
            good.append(answer)
        found = job.task.finish(row, good)
        if isinstance(found, Result):
            return found
        prepared = [job.backend.prepare(next(keys), item) for item in found.requests]
        answers = list(_wait(job, prepared).values())


def _wait(job: Job, prepared: Sequence[Prepared]) -> dict[int, Answer | MmgenError]:
    """Run requests to their ends; return what came of them by key, in order."""
    answers: dict[int, Answer | MmgenError] = {}
    for item in prepared:
        try:
            job.backend.start(item)
        except MmgenError as error:
            answers[item.key] = error
    while job.backend.num_unfinished:
        answers |= {outcome.key: outcome.answer for outcome in job.backend.step()}
    return {item.key: answers[item.key] for item in prepared}
