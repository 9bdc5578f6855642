"""Outputs of every form: which writers a job has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mmgen.batch.tasks.abstract import AbstractTask
from mmgen.batch.writers.abstract import AbstractShardWriter, AbstractWriter
from mmgen.batch.writers.codes import CodesWriter
from mmgen.batch.writers.jsonl import JsonLinesWriter, error_line, result_line
from mmgen.batch.writers.packed import ParquetWriter, WebDatasetWriter
from mmgen.batch.writers.sidecar import SidecarRules, SidecarWriter

__all__ = [
    "AbstractShardWriter",
    "AbstractWriter",
    "OutputForm",
    "SidecarRules",
    "open_writers",
]

OutputForm: TypeAlias = Literal["files", "parquet", "webdataset", "codes", "sidecar"]
"""Outputs besides the JSON lines: pictures as files, packed results, training shards, captions
beside pictures."""


def open_writers(
    forms: Sequence[OutputForm],
    job: Path,
    rows: range,
    rows_per_shard: int,
    task: AbstractTask,
    *,
    vocabulary: str | None,
    config: Mapping[str, Any],
    sidecars: SidecarRules | None = None,
) -> list[AbstractWriter]:
    """Return the writers of a job, each where it left off.

    Args:
        vocabulary: fingerprint of the vocabulary, for training shards; None where no model is.
        config: what decided the results, for training shards.
        sidecars: how captions are written beside pictures.
    """
    writers: list[AbstractWriter] = [
        JsonLinesWriter(job / "results.jsonl", rows.start, result_line),
        JsonLinesWriter(job / "errors.jsonl", rows.start, error_line),
    ]
    for form in forms:
        match form:
            case "files":
                pass  # written before their row is in the log
            case "parquet":
                writers.append(ParquetWriter(job, rows, rows_per_shard, task.columns))
            case "webdataset":
                writers.append(WebDatasetWriter(job, rows, rows_per_shard, words=task.words))
            case "codes":
                assert vocabulary is not None, "training shards have a model's ids"
                writers.append(
                    CodesWriter(job, rows, rows_per_shard, vocabulary=vocabulary, config=config)
                )
            case "sidecar":
                writers.append(SidecarWriter(job, rows, task.words, sidecars or SidecarRules()))
    return writers
