"""The stages that come before a decoder: text tokenizer and shards.

Each leaves `finished.json` with its settings in its output directory. A stage that finds it there
is done; one that finds the file of other settings refuses to mix the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from mmgen.data.prepare import PrepareConfig, Progress, prepare
from mmgen.errors import CheckpointError, DataError, OutputError, SettingsError
from mmgen.plugins import load_visual_tokenizer
from mmgen.text_tokenizer import load_text_tokenizer, train_bpe
from mmgen.train.config import TokenizerSource
from mmgen.train.overrides import differences, to_plain
from mmgen.train.progress import AbstractProgress
from mmgen.train.sources import AbstractSourceConfig
from mmgen.train.stage import AbstractStage
from mmgen.train.state import write_atomically
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Layout,
    Ordered,
    VisualTokenizerSpec,
)
from mmgen.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mmgen.data.sources import AbstractSource

__all__ = ["PrepareJob", "PrepareStage", "TextTokenizerStage"]

_FINISHED = "finished.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizerStage(AbstractStage):
    """Train a byte-level BPE on what the model will read and write; it ends in `output`."""

    num_ids: int
    """Ids, of which 256 are the bytes."""
    sources: tuple[AbstractSourceConfig, ...]
    """Rows whose captions and dialogues, or whose plain text, are the texts."""
    max_characters: int = 2000
    """Characters taken of each plain text."""
    output: Path
    """Directory of the tokenizer."""

    @property
    def title(self) -> str:
        return f"train a text tokenizer of {self.num_ids} ids in {self.output}"

    @property
    def is_finished(self) -> bool:
        return was_finished(self, self.output)

    def run(self, progress: AbstractProgress) -> bool:
        texts: list[str] = []
        for number, source in enumerate(self.sources):
            for share, text in _texts(source.open(), self.max_characters):
                texts.append(text)
                progress.update((number + share) / len(self.sources), f"{len(texts):,} texts")
        tokenizer = train_bpe(texts, num_ids=self.num_ids)
        if tokenizer.num_ids != self.num_ids:
            raise SettingsError(
                f"the texts give only {tokenizer.num_ids} ids, not {self.num_ids}; "
                "ask for fewer or give more texts"
            )
        self.output.mkdir(parents=True, exist_ok=True)
        tokenizer.save(self.output)
        finish(self, self.output)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareJob:
    """One folder of shards."""

    name: str
    """The folder's name."""
    source: AbstractSourceConfig
    """The rows."""
    settings: PrepareConfig
    """What to make of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareStage(AbstractStage):
    """Fix the vocabulary, in `output/vocabulary.json`, and write shards of it."""

    text_tokenizer: Path
    """Directory of the text tokenizer."""
    visual_tokenizers: tuple[TokenizerSource, ...]
    """The tokenizers, in the order of their ids."""
    jobs: tuple[PrepareJob, ...]
    """The folders to write."""
    output: Path
    """Directory of the folders."""

    @property
    def title(self) -> str:
        return f"prepare {len(self.jobs)} folders of shards in {self.output}"

    @property
    def is_finished(self) -> bool:
        return was_finished(self, self.output)

    def run(self, progress: AbstractProgress) -> bool:
        from mmgen.document import DocumentCodec

        text_tokenizer = load_text_tokenizer(self.text_tokenizer)
        vocabulary = Vocabulary.build(
            num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
        )
        tokenizers: dict[str, AbstractVisualTokenizer] = {}
        for source in self.visual_tokenizers:
            tokenizer = load_visual_tokenizer(source.name, source.path)
            tokenizers[source.name] = tokenizer
            vocabulary = vocabulary.extend(
                source.name,
                codebook_sizes=tokenizer.spec.codebook_sizes,
                layouts=chosen_layouts(tokenizer, source),
            )
        codec = DocumentCodec(vocabulary, text_tokenizer, tokenizers)
        self.output.mkdir(parents=True, exist_ok=True)
        write_atomically(self.output / "vocabulary.json", vocabulary.to_json())
        for number, job in enumerate(self.jobs):

            def report(made: Progress, number: int = number, name: str = job.name) -> None:
                share = (number + made.num_rows_done / made.num_rows) / len(self.jobs)
                progress.update(share, f"{name}: {made.num_documents:,} documents")

            manifest = prepare(
                job.settings, job.source.open(), codec, self.output / job.name, on_progress=report
            )
            if manifest.refused:
                row, reason = manifest.refused[0]
                progress.note(
                    f"{job.name}: {len(manifest.refused)} rows left out, the first {row}: {reason}"
                )
        finish(self, self.output)
        return True


def chosen_layouts(tokenizer: AbstractVisualTokenizer, source: TokenizerSource) -> list[Layout]:
    """Return the layouts of the sizes and lengths that a source names, or the default ones.

    Of a tokenizer that chooses lengths, these are all lengths of a size.

    Raises:
        SettingsError: the tokenizer has no such size, or no such length.
    """
    spec = tokenizer.spec
    layouts: list[Layout] = []
    for size in source.sizes or (spec.pixels.size_of(spec.default_layout),):
        found = [layout for layout in spec.layouts if spec.pixels.size_of(layout) == size]
        if not found:
            known = ", ".join(f"{height}x{width}" for height, width in spec.sizes)
            raise SettingsError(
                f"{source.name} makes no pictures of {size[0]}x{size[1]} pixels (height x width); "
                f"it makes {known}"
            )
        if source.lengths:
            layouts += _of_lengths(found, spec, source)
        else:
            layouts += found if spec.chooses_length else found[:1]
    return layouts


def _of_lengths(
    layouts: Sequence[Layout], spec: VisualTokenizerSpec, source: TokenizerSource
) -> list[Layout]:
    """Return the layout of each length that a source names, among those of one size."""
    by_length = {layout.length: layout for layout in layouts if isinstance(layout, Ordered)}
    if spec.chooses_length or len(by_length) < 2:
        why = "chooses the length of each picture itself" if spec.chooses_length else "has one"
        raise SettingsError(
            f"lengths are for tokenizers that can be asked for several, but {source.name} {why}; "
            "leave lengths out"
        )
    if len(set(source.lengths)) < len(source.lengths):
        raise SettingsError(f"each length is named once, got {', '.join(map(str, source.lengths))}")
    for length in source.lengths:
        if length not in by_length:
            known = ", ".join(map(str, sorted(by_length)))
            raise SettingsError(
                f"{source.name} makes no pictures of {length} positions; it makes {known}"
            )
    return [by_length[length] for length in source.lengths]


def _texts(source: AbstractSource, max_characters: int) -> Iterator[tuple[float, str]]:
    """Yield the share of rows done and a text: of captions, of dialogues, or of the row itself."""
    from PIL import Image

    from mmgen.data.templates import TEMPLATES, Scene
    from mmgen.document import Text

    # What is said of a picture's colours must be said of some picture; any will do here.
    blank = Image.new("RGB", (8, 8), "white")
    others = [source.attributes(index) for index in range(source.num_rows)]
    others = [attributes for attributes in others if attributes]
    for index in range(source.num_rows):
        share = index / source.num_rows
        try:
            row = source.row(index)
        except DataError:
            continue
        if row.text is not None:
            yield share, row.text[:max_characters]
            continue
        if not row.captions and not {"name", "phrase"} & set(row.attributes):
            continue
        scene = Scene(
            attributes=row.attributes,
            captions=row.captions,
            picture=blank,
            shown=blank,
            colours={"red": 0.5, "blue": 0.3},
            others=others,
            tokenizer="",
        )
        for direction in ("draw", "describe"):
            document = TEMPLATES[direction](scene, Random(f"texts/{index}/{direction}"))
            for turn in document.turns:
                for segment in turn.segments:
                    if isinstance(segment, Text):
                        yield share, segment.text


def was_finished(stage: AbstractStage, output: Path) -> bool:
    path = output / _FINISHED
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete {output}") from error
    changed = differences(stored, to_plain(stage))
    changed.pop("output", None)
    if changed:
        listed = "; ".join(f"{name} was {old} and is {new}" for name, (old, new) in changed.items())
        raise CheckpointError(
            f"{output} was made with other settings: {listed}. "
            "Use the former values, or another output to start anew"
        )
    return True


def finish(stage: AbstractStage, output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {output}: {error.strerror}") from error
    write_atomically(output / _FINISHED, json.dumps(to_plain(stage), indent=1) + "\n")
