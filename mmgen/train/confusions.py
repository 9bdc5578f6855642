"""Which codes a model takes for which: one pass over captioned pictures, nothing drawn in turn.

The model reads a caption and the true codes of its picture, and at each position one code is drawn
from what it expects there, guided and at the temperature with which it draws. What it drew in the
place of each true code is what a decoder of these codes will meet (`mmgen.wrapping.confusions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmgen.checkpoint import Checkpoint, open_checkpoint
from mmgen.condition import null_condition
from mmgen.data.sources import AbstractSource
from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.errors import CheckpointError, DataError, PictureError, SettingsError
from mmgen.generate.engine import SamplingParams
from mmgen.generate.sampling import SamplingRows, guide, sample
from mmgen.grammar import ImageSpan
from mmgen.model import Decoder
from mmgen.train.progress import AbstractProgress
from mmgen.train.sources import AbstractSourceConfig
from mmgen.train.stage import AbstractStage
from mmgen.train.stages import finish, was_finished
from mmgen.wrapping.confusions import count_confusions, write_confusions

__all__ = ["CONFUSIONS_FILE", "ConfusionStage", "drawn_in_place"]

CONFUSIONS_FILE = "confusions.safetensors"

BATCH_SIZE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionStage(AbstractStage):
    """Count what a model draws in the place of each code, into `output/confusions.safetensors`."""

    model: str
    """A checkpoint, by name or folder; its default visual tokenizer is the one that is counted."""
    source: AbstractSourceConfig
    """Pictures with captions, of the kind that the model was trained on."""
    num_pictures: int = 3000
    """Pictures looked at, at most."""
    num_candidates: int = 16
    """Codes kept for each code."""
    seed: int = 0
    """Decides what is drawn, and which pictures are looked at."""
    output: Path
    """Directory of the table."""

    def __post_init__(self) -> None:
        if self.num_pictures < 1 or self.num_candidates < 1:
            raise SettingsError(
                "num_pictures and num_candidates must be 1 or more, got "
                f"{self.num_pictures} and {self.num_candidates}"
            )

    @property
    def title(self) -> str:
        return f"count what {self.model} draws in the place of each code"

    @property
    def is_finished(self) -> bool:
        return was_finished(self, self.output)

    def run(self, progress: AbstractProgress) -> bool:
        checkpoint = open_checkpoint(self.model)
        name = checkpoint.generation.tokenizer
        tokenizer = checkpoint.load_visual_tokenizer(name, as_trained=True)
        codec = DocumentCodec(checkpoint.vocabulary, checkpoint.text_tokenizer, {name: tokenizer})
        decoder = checkpoint.load_decoder()
        true, drawn = [], []
        documents = _documents(self, checkpoint, self.source.open(), progress)
        for number, batch in enumerate(documents):
            pairs = drawn_in_place(checkpoint, codec, decoder, batch, seed=self.seed + number)
            true.append(pairs[0])
            drawn.append(pairs[1])
            count = number * BATCH_SIZE + len(batch)
            progress.update(count / self.num_pictures, f"{count:,} pictures looked at")
        if not true:
            raise DataError("no picture of the source has a caption; name its caption columns")
        confusions = count_confusions(
            torch.cat(true),
            torch.cat(drawn),
            tokenizer.spec.codebook_sizes,
            num_candidates=self.num_candidates,
        )
        progress.note(f"{confusions.error_rate:.1%} of the codes drawn are others than the true")
        self.output.mkdir(parents=True, exist_ok=True)
        write_confusions(
            confusions,
            self.output / CONFUSIONS_FILE,
            fingerprint=tokenizer.fingerprint,
            model=checkpoint.fingerprint,
        )
        finish(self, self.output)
        return True


def _documents(
    stage: ConfusionStage,
    checkpoint: Checkpoint,
    source: AbstractSource,
    progress: AbstractProgress,
) -> Iterator[list[Document]]:
    """Yield batches of a caption and its picture each, as the model is asked to draw."""
    order = np.random.default_rng(stage.seed).permutation(source.num_rows)
    batch: list[Document] = []
    num_made = 0
    for index in order:
        if num_made == stage.num_pictures:
            break
        try:
            row = source.row(int(index))
        except (DataError, PictureError) as error:
            progress.note(f"picture left out: {error}")
            continue
        if row.picture is None or not row.captions:
            continue
        caption = row.captions[num_made % len(row.captions)]
        asked = checkpoint.generation.draw_template.replace("{prompt}", caption)
        image = Image(picture=row.picture, tokenizer=checkpoint.generation.tokenizer)
        turns = (Turn("user", (Text(asked),)), Turn("assistant", (image,)))
        batch.append(Document(turns=turns))
        num_made += 1
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.inference_mode()
def drawn_in_place(
    checkpoint: Checkpoint,
    codec: DocumentCodec,
    decoder: Decoder,
    documents: Sequence[Document],
    *,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return the true codes and those drawn in their places, `[pictures, positions, codebooks]`.

    Args:
        documents: one picture each, all of one layout, as the last thing said.
    """
    generation, vocabulary = checkpoint.generation, codec.vocabulary
    encoded = [codec.encode(document) for document in documents]
    rows = [item.ids.tolist() for item in encoded]
    spans = [span for item in encoded for span in item.spans if isinstance(span, ImageSpan)]
    if len(spans) != len(rows) or len({span.codes.layout for span in spans}) > 1:
        raise SettingsError("confusions are counted on pictures of one layout, one in a document")
    width, limit = max(map(len, rows)), decoder.config.context_length
    if width > limit:
        raise CheckpointError(f"a caption and its picture take {width} ids of the {limit} that fit")
    scale = generation.guidance_scale
    both = [*rows, *([null_condition(row, vocabulary) for row in rows] if scale != 1 else [])]
    ids = torch.tensor([row + [vocabulary.pad_id] * (width - len(row)) for row in both])
    hidden = decoder(ids, torch.arange(width).expand(len(both), -1))
    ranges = vocabulary.tokenizer(spans[0].name).code_ids
    num_codes = spans[0].codes.array.size
    # Scores at a place are of the id behind it; the closing marker ends the span.
    places = torch.tensor([range(span.stop - 2 - num_codes, span.stop - 2) for span in spans])
    given = hidden[: len(rows)].gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
    if scale != 1:
        free = hidden[len(rows) :].gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        given = guide(given.flatten(0, 1), free.flatten(0, 1), torch.tensor([[scale]])).view_as(
            given
        )
    defaults = generation.image
    params = SamplingParams(
        temperature=defaults.temperature, top_k=defaults.top_k, top_p=defaults.top_p
    )
    columns = []
    for book, book_ids in enumerate(ranges):
        chosen = given[:, book :: len(ranges)].flatten(0, 1)
        logits = decoder.logits(chosen).float()[:, book_ids.start : book_ids.stop]
        count = len(chosen)
        settings = SamplingRows.stack(
            [params] * count, [(seed << 20) + book * count + place for place in range(count)]
        )
        local = torch.arange(len(book_ids))
        steps = torch.zeros(count, 1, dtype=torch.int64)
        columns.append(sample(logits, local, steps, settings).view(len(rows), -1))
    true = torch.from_numpy(np.stack([span.codes.array for span in spans]))
    return true, torch.stack(columns, dim=-1)
