"""The losses of a decoder on prepared shards, by modality, each document once."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch

from mmgen.data.loader import pass_once
from mmgen.evaluate.progress import Progress
from mmgen.model import Decoder
from mmgen.text_tokenizer import TextTokenizer
from mmgen.train.alternatives import Alternatives
from mmgen.train.loss import decoder_loss
from mmgen.train.measure import Tally, text_id_bytes
from mmgen.vocabulary import Vocabulary

__all__ = ["shard_losses"]

ROWS_AT_ONCE = 4


@torch.no_grad()
def shard_losses(
    decoder: Decoder,
    vocabulary: Vocabulary,
    text_tokenizer: TextTokenizer,
    path: Path,
    *,
    max_batches: int,
    progress: Progress,
) -> dict[str, float]:
    """Return nats per id of text, pictures and marks, bits per byte and bits per image.

    Args:
        vocabulary: the one that the shards were prepared with. The decoder may have more ids.
        path: folder of shards.
        max_batches: batches of four rows, the first ones.

    Raises:
        DataError: the shards are of another vocabulary or longer than the decoder's context.
    """
    id_bytes, tally = text_id_bytes(text_tokenizer), Tally.empty()
    alternatives = Alternatives.of(vocabulary)
    batches = pass_once(
        path,
        vocabulary=vocabulary,
        context_length=decoder.config.context_length,
        rows_per_batch=ROWS_AT_ONCE,
    )
    for batch in progress(list(islice(batches, max_batches)), f"measuring {path.name}"):
        hidden = decoder(batch.ids, batch.positions, batch.document_ids)
        _, sums = decoder_loss(
            hidden,
            decoder.head.weight,
            batch.targets,
            batch.modality,
            alternatives=alternatives,
            num_text_ids=vocabulary.num_text_ids,
            normaliser=1.0,
        )
        tally.add(sums, batch.targets, id_bytes, vocabulary.end_image_id)
    return tally.report()
