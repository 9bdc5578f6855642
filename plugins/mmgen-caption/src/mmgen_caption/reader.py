"""A small reader of captions: words by their spelling, then a transformer that sums them up.

A word is the mean of vectors that its own spelling and its runs of three letters choose by a hash
(fastText), so there is no word list, and a word that training never met is like those it
resembles. Nothing outside the plugin's weights is needed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from mmgen.autoencoding import Transformer

__all__ = ["CaptionReader", "pieces_of", "words_of"]

_WORD = re.compile(r"\w+")


def words_of(caption: str) -> list[str]:
    """Return the words of a caption, in lower case and without punctuation."""
    return _WORD.findall(caption.casefold())


@lru_cache(maxsize=65536)
def pieces_of(word: str, num_buckets: int) -> tuple[int, ...]:
    """Return the vectors that a word is made of: of itself and of its runs of three letters."""
    marked = f"<{word}>"
    spellings = {marked, *(marked[start : start + 3] for start in range(len(marked) - 2))}
    return tuple(
        int.from_bytes(hashlib.blake2b(spelling.encode(), digest_size=8).digest()) % num_buckets
        for spelling in sorted(spellings)
    )


class CaptionReader(nn.Module):
    """Captions to a few features each, `[batch, num_summaries, width]`."""

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        num_layers: int,
        num_buckets: int,
        num_summaries: int,
        num_places: int,
    ) -> None:
        """Make a reader with fresh weights.

        Args:
            width: numbers of a feature.
            num_heads: heads of attention.
            num_layers: transformer blocks.
            num_buckets: vectors that pieces of words share.
            num_summaries: features of a caption.
            num_places: words whose place in the caption is told apart; later ones share the last.
        """
        super().__init__()
        self.pieces = nn.EmbeddingBag(num_buckets, width, mode="mean")
        self.places = nn.Parameter(torch.randn(num_places, width) * 0.02)
        self.summaries = nn.Parameter(torch.randn(num_summaries, width) * 0.02)
        self.transformer = Transformer(width, num_heads, num_layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Read; a caption without words gives what is known when nothing is said."""
        device, count = self.summaries.device, len(self.summaries)
        words = [words_of(caption) for caption in captions]
        longest = max(map(len, words), default=0)
        summaries = self.summaries.expand(len(captions), -1, -1)
        is_word = torch.tensor(
            [[index < len(item) for index in range(longest)] for item in words],
            dtype=torch.bool,
            device=device,
        ).reshape(len(captions), longest)
        is_present = torch.cat([is_word.new_ones(len(captions), count), is_word], dim=1)
        said = summaries.new_zeros(len(captions), longest, summaries.shape[2])
        said[is_word] = self._vectors([word for item in words for word in item])
        places = self.places[torch.arange(longest, device=device).clamp_max(len(self.places) - 1)]
        features = torch.cat([summaries, said + places], dim=1)
        read: Tensor = self.norm(self.transformer(features, is_present)[:, :count])
        return read

    def _vectors(self, words: Sequence[str]) -> Tensor:
        """Return the vector of each word, `[words, width]`."""
        pieces = [pieces_of(word, self.pieces.num_embeddings) for word in words]
        starts = [0]
        for item in pieces:
            starts.append(starts[-1] + len(item))
        device = self.summaries.device
        flat = torch.tensor([piece for item in pieces for piece in item], device=device)
        vectors: Tensor = self.pieces(flat.long(), torch.tensor(starts[:-1], device=device).long())
        return vectors
