"""Rows to shards: templates, pictures to codes, documents to ids, one shard after another.

The contents of a shard follow from its source rows and the settings alone. A killed preparation
goes on at the first shard that is not in the manifest, and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from mmgen.data.augment import Augmentation, augmented
from mmgen.data.colours import colour_shares
from mmgen.data.mixing import Mixing, mixed
from mmgen.data.picture_codes import choose_length, lengths_of, with_codes
from mmgen.data.shards import (
    CONDITION,
    IMAGE,
    LOSS,
    MANIFEST_NAME,
    Manifest,
    Sample,
    ShardFolder,
    write_shard,
)
from mmgen.data.sources import AbstractSource, Row
from mmgen.data.templates import TEMPLATES, Scene
from mmgen.document import Document, DocumentCodec, EncodedDocument, Text
from mmgen.errors import DataError, OutputError, PictureError, SettingsError
from mmgen.grammar import ImageSpan, MarkSpan
from mmgen.pictures import open_picture

__all__ = ["PrepareConfig", "Progress", "flags_of", "prepare"]

_NUM_OTHERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """What to make of each row."""

    num_draw: int = 2
    """Documents of each picture in which it is drawn from words."""
    num_describe: int = 2
    """Documents of each picture in which it is talked about."""
    num_mixed: int = 0
    """Documents of each picture in which it is drawn and then talked about."""
    num_name: int = 0
    """Documents of each picture in which it is only named: the shortest way to learn that."""
    name_mixing: Mixing = field(default_factory=Mixing)
    """How many of those have most codes of another picture, for tokenizers that name first."""
    context_length: int = 1024
    """Ids that a document may have; longer plain text is cut, other documents are refused."""
    tokenizer: str | None = None
    """Visual tokenizer; by default the only one of the model."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How pictures that are described may be changed; those to be drawn never are."""
    limit: int | None = None
    """Rows taken from the start of the source; None takes all."""
    rows_per_shard: int = 1024
    """Source rows of one shard: what is done again at most after an interruption."""
    batch_size: int = 64
    """Pictures that the visual tokenizer encodes at once."""
    seed: int = 0
    """Of every choice of words and every change of a picture."""

    def __post_init__(self) -> None:
        counts = (self.num_draw, self.num_describe, self.num_mixed, self.num_name)
        if min(counts) < 0 or sum(counts) < 1:
            raise SettingsError(
                "num_draw, num_describe, num_mixed and num_name must be zero or more, and one of "
                f"them more, got {', '.join(map(str, counts))}"
            )
        if self.name_mixing.share and not self.num_name:
            raise SettingsError(
                f"name_mixing.share is {self.name_mixing.share}, but it mixes documents that only "
                "name a picture, and num_name is 0; raise num_name or leave out name_mixing"
            )
        sizes = (self.rows_per_shard, self.batch_size)
        if min(sizes) < 1 or self.context_length < 4 or (self.limit is not None and self.limit < 1):
            raise SettingsError(
                "rows_per_shard, batch_size and limit must be positive and context_length 4 or "
                f"more, got {sizes[0]}, {sizes[1]}, {self.limit} and {self.context_length}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far preparation is."""

    num_rows_done: int
    num_rows: int
    num_documents: int
    """Written or about to be, those of an earlier run included."""
    num_refused: int


def prepare(
    config: PrepareConfig,
    source: AbstractSource,
    codec: DocumentCodec,
    output: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """Write the shards of a source, or go on where an earlier run stopped; return the manifest.

    Args:
        config: what to make of each row.
        source: the rows.
        codec: of the model that the data is for.
        output: the folder of the shards; made if it is missing.
        on_progress: called now and then.
    """
    num_rows = min(source.num_rows, config.limit or source.num_rows)
    maker = _Maker(config, source, codec)
    manifest = _open_output(
        output,
        Manifest(
            vocabulary=codec.vocabulary.fingerprint,
            config=_identity(config, source, codec, maker.tokenizer),
            num_rows=num_rows,
        ),
    )
    for start in range(manifest.next_row, num_rows, config.rows_per_shard):
        stop = min(start + config.rows_per_shard, num_rows)
        samples: list[Sample] = []
        refused: list[tuple[str, str]] = []
        for done, part, part_refused in maker.batches(start, stop):
            samples += part
            refused += part_refused
            if on_progress is not None:
                on_progress(
                    Progress(
                        num_rows_done=done,
                        num_rows=num_rows,
                        num_documents=manifest.num_documents + len(samples),
                        num_refused=len(manifest.refused) + len(refused),
                    )
                )
        seed = f"{config.seed}/{start}/mixing"
        samples = mixed(samples, config.name_mixing, seed, takes_part=maker.only_names)
        name = f"shard-{len(manifest.shards):05d}.arrow"
        info = write_shard(output / name, samples, start=start, stop=stop, refused=refused)
        manifest = replace(manifest, shards=(*manifest.shards, info))
        manifest.write(output)
    return manifest


def flags_of(encoded: EncodedDocument) -> npt.NDArray[np.uint8]:
    """Return the flag byte of each id of a document.

    What the assistant says counts for the loss, and all of a document without turns. The condition
    is what the user says up to the last picture that the assistant draws.
    """
    flags = np.zeros(len(encoded.ids), dtype=np.uint8)
    pairs = list(zip(encoded.spans, encoded.roles, strict=True))
    drawn = [span for span, role in pairs if role == "assistant" and isinstance(span, ImageSpan)]
    last_drawn = drawn[-1].start if drawn else 0
    has_turns = any(role is not None for _, role in pairs)
    for span, role in pairs:
        place = slice(span.start, span.stop)
        is_opening = isinstance(span, MarkSpan) and span.kind in ("bos", "user", "assistant")
        is_learnt = role == "assistant" or not has_turns
        if is_learnt and not is_opening:
            flags[place] |= LOSS
        if isinstance(span, ImageSpan):
            flags[span.start + 1 : span.stop - 1] |= IMAGE
        if role == "user" and not isinstance(span, MarkSpan) and span.start < last_drawn:
            flags[place] |= CONDITION
    return flags


@dataclass(frozen=True, slots=True)
class _Draft:
    row: str
    variant: int
    document: Document
    length: int | None
    """Positions of its pictures; None for the tokenizer's default."""


class _Maker:
    """Makes samples of rows."""

    def __init__(self, config: PrepareConfig, source: AbstractSource, codec: DocumentCodec) -> None:
        self._config = config
        self._source = source
        self._codec = codec
        self.tokenizer = _tokenizer_name(config, codec)
        self._lengths = () if self.tokenizer is None else lengths_of(codec, self.tokenizer)
        self._others = _others(source)
        self._directions = (
            *("draw",) * config.num_draw,
            *("describe",) * config.num_describe,
            *("mixed",) * config.num_mixed,
            *("name",) * config.num_name,
        )

    def batches(
        self, start: int, stop: int
    ) -> Iterator[tuple[int, list[Sample], list[tuple[str, str]]]]:
        """Yield rows done, samples and refused rows, some at a time."""
        drafts: list[_Draft] = []
        refused: list[tuple[str, str]] = []
        samples: list[Sample] = []
        for index in range(start, stop):
            try:
                row = self._source.row(index)
                if row.text is not None:
                    samples += self._split(row.id, row.text)
                else:
                    drafts += self._drafts(index, row)
            except (DataError, PictureError) as error:
                refused.append((str(index), str(error)))
            if len(drafts) >= self._config.batch_size or index + 1 == stop:
                made, too_long = self._encode(drafts)
                yield index + 1, samples + made, refused + too_long
                drafts, samples, refused = [], [], []

    def only_names(self, sample: Sample) -> bool:
        """Return whether a sample only names a picture."""
        has_picture = bool((sample.flags & IMAGE).any())
        return has_picture and self._directions[sample.variant] == "name"

    def _drafts(self, index: int, row: Row) -> list[_Draft]:
        if row.picture is None:
            raise DataError(f"row {row.id} has neither a picture nor a text")
        if not row.captions and not {"name", "phrase"} & set(row.attributes):
            raise DataError(f"row {row.id} has no caption, name or phrase")
        if self.tokenizer is None:
            raise SettingsError("the model has no visual tokenizer, so it cannot learn pictures")
        variants = self._variants(index)
        if not variants:
            return []
        picture = open_picture(row.picture)
        colours = colour_shares(picture)
        drafts = []
        for variant in variants:
            rng = Random(f"{self._config.seed}/{index}/{variant}")
            direction = self._directions[variant]
            shown = picture
            if direction in ("describe", "name"):
                shown = augmented(picture, self._config.augmentation, rng)
            scene = Scene(
                attributes=row.attributes,
                captions=row.captions,
                picture=picture,
                shown=shown,
                colours=colours,
                others=self._others,
                tokenizer=self.tokenizer,
            )
            length = choose_length(self._lengths, f"{self._config.seed}/{index}/{variant}/length")
            drafts.append(_Draft(row.id, variant, TEMPLATES[direction](scene, rng), length))
        return drafts

    def _variants(self, index: int) -> list[int]:
        """Return the variants of a row; rows that take turns each get some of them."""
        share = self._source.share(index)
        order = list(range(share.size))
        Random(f"{self._config.seed}/turns/{share.group}").shuffle(order)
        numbers = range(len(self._directions))
        return [number for number in numbers if order[number % share.size] == share.rank]

    def _encode(self, drafts: Sequence[_Draft]) -> tuple[list[Sample], list[tuple[str, str]]]:
        samples: list[Sample] = []
        refused: list[tuple[str, str]] = []
        if not drafts:
            return samples, refused
        assert self.tokenizer is not None
        spelled = with_codes(
            [draft.document for draft in drafts],
            [draft.length for draft in drafts],
            self._codec,
            self.tokenizer,
            batch_size=self._config.batch_size,
        )
        limit = self._config.context_length
        for draft, document in zip(drafts, spelled, strict=True):
            encoded = self._codec.encode(document)
            if len(encoded.ids) > limit:
                reason = (
                    f"variant {draft.variant} has {len(encoded.ids)} ids, more than the context "
                    f"length {limit}"
                )
                refused.append((draft.row, reason))
                continue
            flags = flags_of(encoded)
            samples.append(
                Sample(row=draft.row, variant=draft.variant, ids=encoded.ids, flags=flags)
            )
        return samples, refused

    def _split(self, row: str, text: str) -> Iterator[Sample]:
        """Yield a plain text as documents that fit the context."""
        encoded = self._codec.encode(Document(segments=(Text(text),)))
        first, body, last = encoded.ids[:1], encoded.ids[1:-1], encoded.ids[-1:]
        length = self._config.context_length - 2
        for number, start in enumerate(range(0, len(body), length)):
            part = body[start : start + length]
            flags = np.full(len(part) + 2, LOSS, dtype=np.uint8)
            flags[0] = 0
            if start + length < len(body):
                # The text goes on, so its end is not to be learnt here.
                flags[-1] = 0
            ids = np.concatenate([first, part, last])
            yield Sample(row=row, variant=number, ids=ids, flags=flags)


def _others(source: AbstractSource) -> list[Mapping[str, str]]:
    """Return attributes of some thousand rows; of rows that take turns, those of one."""
    firsts = [index for index in range(source.num_rows) if source.share(index).rank == 0]
    step = max(1, len(firsts) // _NUM_OTHERS)
    others = (source.attributes(index) for index in firsts[::step])
    return [attributes for attributes in others if attributes]


def _tokenizer_name(config: PrepareConfig, codec: DocumentCodec) -> str | None:
    """Return the tokenizer to use; None if the model has none, which does for plain text."""
    names = list(codec.visual_tokenizers)
    if config.tokenizer is not None and config.tokenizer not in names:
        raise SettingsError(
            f"the model has no visual tokenizer {config.tokenizer!r}; it has "
            f"{', '.join(names) or 'none'}"
        )
    if config.tokenizer is None and len(names) > 1:
        raise SettingsError(f"name the tokenizer to use, since the model has {', '.join(names)}")
    return config.tokenizer or next(iter(names), None)


def _identity(
    config: PrepareConfig, source: AbstractSource, codec: DocumentCodec, tokenizer: str | None
) -> dict[str, object]:
    """Return what decides the contents of the shards."""
    settings = asdict(replace(config, tokenizer=tokenizer))
    del settings["batch_size"]
    if not config.num_name:
        # Shards without such documents are what they were before there was a choice.
        del settings["num_name"]
    if not config.name_mixing.share:
        del settings["name_mixing"]
    fingerprint = codec.visual_tokenizers[tokenizer].fingerprint if tokenizer else None
    return {
        "settings": settings,
        "source": dict(source.description),
        "tokenizer": {"name": tokenizer, "fingerprint": fingerprint},
    }


def _open_output(output: Path, wanted: Manifest) -> Manifest:
    """Return the manifest to go on from: an equal one that is there, or a fresh one."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror}") from error
    for partial in output.glob(".*.partial"):
        partial.unlink()
    if not (output / MANIFEST_NAME).exists():
        if any(output.glob("*.arrow")):
            raise DataError(
                f"{output} holds shards without {MANIFEST_NAME}; choose another folder or empty it"
            )
        wanted.write(output)
        return wanted
    found = ShardFolder(output).manifest
    changes = [
        f"{name} was {old!r} and is now {new!r}"
        for name, old, new in _differences(
            {"vocabulary": found.vocabulary, "num_rows": found.num_rows, **found.config},
            {"vocabulary": wanted.vocabulary, "num_rows": wanted.num_rows, **wanted.config},
        )
    ]
    if changes:
        raise DataError(
            f"{output} was begun with other settings: {'; '.join(changes)}; choose another folder, "
            "or the settings that it was begun with"
        )
    return found


def _differences(
    old: Mapping[str, object], new: Mapping[str, object], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after
