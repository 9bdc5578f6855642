"""How hard codes are to predict: bits per image under a small decoder, trained alike on each.

Loss per token depends on how coarse tokens are; bits for a whole picture do not. The same decoder
sees the same pictures in the same order for the same number of steps, and only what could come at a
place is scored, as the grammar has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from mmgen.errors import SettingsError
from mmgen.evaluate.progress import Progress
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.visual_tokenizer import Codes, Ordered

__all__ = ["MAX_LEARNED", "CodeModelConfig", "CodeModelScore", "score_codes"]

MAX_LEARNED = 4096
"""Pictures that the yardstick lets it learn from, at most."""

_ABSENT = -1
"""Stands in the place of codes behind the end of a picture that is shorter than others."""

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeModelConfig:
    """The decoder and its training, equal for all tokenizers."""

    hidden_size: int = 128
    """Width of the residual stream."""
    num_layers: int = 2
    """Blocks."""
    num_steps: int = 600
    """Steps of training, which bound what it costs."""
    batch_size: int = 16
    """Pictures a step."""
    lr: float = 2e-3
    """Peak learning rate of AdamW, after a rise over a tenth of the steps; then half a cosine."""
    seed: int = 0
    """Seeds the weights and the order."""

    def __post_init__(self) -> None:
        if min(self.num_steps, self.batch_size) < 1:
            raise SettingsError(
                f"steps and pictures a step are 1 or more, got {self.num_steps} and "
                f"{self.batch_size}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeModelScore:
    """What the small decoder made of one tokenizer's codes."""

    bits_per_image: float
    """Of pictures it has not seen."""
    train_bits_per_image: float
    """In the last pass over those it has seen, or as much of it as there was."""
    num_train: int
    """Pictures trained on."""
    num_steps: int
    """Steps of training."""
    num_held_out: int
    """Pictures scored."""
    num_parameters: int
    """Of the decoder without the tables of codes: the same for every tokenizer."""
    num_table_parameters: int
    """Of the tables of codes, which grow with the codebooks."""


def score_codes(
    learned: Sequence[Codes],
    codes: Sequence[Codes],
    codebook_sizes: Sequence[int],
    config: CodeModelConfig,
    *,
    progress: Progress,
) -> CodeModelScore:
    """Train the decoder on the codes of some pictures and score those of others.

    All pictures must have one layout, but `Ordered` ones may differ in length: the decoder then
    spells the length first, as a model would, and its bits count.
    """
    layouts = {item.layout for item in (*learned, *codes)}
    if len(layouts) != 1 and not all(isinstance(layout, Ordered) for layout in layouts):
        raise SettingsError(
            f"the pictures have {len(layouts)} layouts, but a small decoder learns one; give "
            "pictures of one shape"
        )
    if len(learned) < config.batch_size:
        raise SettingsError(
            f"{len(learned)} pictures are too few to train a decoder on; give "
            f"{config.batch_size} or more"
        )
    starts = np.concatenate([[0], np.cumsum(codebook_sizes)])
    longest = max(len(item.array) for item in (*learned, *codes))
    ids = torch.full((len(learned) + len(codes), longest, len(codebook_sizes)), _ABSENT)
    for row, item in zip(ids, (*learned, *codes), strict=True):
        row[: len(item.array)] = torch.from_numpy(item.array + starts[:-1])
    with torch.random.fork_rng(devices=[]):
        model = _CodeModel(ids, starts.tolist(), config)
        trained = model.train(ids[: len(learned)], progress)
    settings = model.decoder.config
    tables = settings.vocab_size * settings.hidden_size * (1 if settings.tie_word_embeddings else 2)
    return CodeModelScore(
        bits_per_image=model.bits(ids[len(learned) :]),
        train_bits_per_image=trained,
        num_train=len(learned),
        num_steps=config.num_steps,
        num_held_out=len(codes),
        num_parameters=settings.num_parameters - tables,
        num_table_parameters=tables,
    )


class _CodeModel:
    """A decoder over codes `[pictures, positions, codebooks]`, each codebook with its own ids.

    Pictures that are shorter than others end in `_ABSENT`; then there are ids of lengths too.
    """

    def __init__(self, ids: Tensor, starts: Sequence[int], config: CodeModelConfig) -> None:
        self.config = config
        self.starts = starts
        self.num_lengths = ids.shape[1] if (ids == _ABSENT).any() else 0
        length = ids.shape[1] * ids.shape[2] + bool(self.num_lengths)
        self.decoder = Decoder(
            DecoderConfig(
                vocab_size=starts[-1] + 1 + self.num_lengths,  # one more to begin with
                hidden_size=config.hidden_size,
                num_layers=config.num_layers,
                num_heads=max(1, config.hidden_size // 64),
                num_kv_heads=max(1, config.hidden_size // 64),
                intermediate_size=config.hidden_size * 3,
                context_length=length,
            )
        )
        init_weights(self.decoder, config.seed)

    def train(self, ids: Tensor, progress: Progress) -> float:
        """Learn; return the bits per image of the last pass."""
        config = self.config
        batches = len(ids) // config.batch_size
        optimizer = torch.optim.AdamW(self.decoder.parameters(), lr=config.lr, weight_decay=0.01)
        generator = torch.Generator().manual_seed(config.seed)
        order = torch.empty(0, dtype=torch.int64)
        nats: list[float] = []
        for step in progress(range(config.num_steps), "training a small decoder"):
            batch = step % batches
            if batch == 0:
                order = torch.randperm(len(ids), generator=generator)
            rise = min(1.0, (step + 1) / max(1, config.num_steps // 10))
            fall = (1 + math.cos(math.pi * step / config.num_steps)) / 2
            optimizer.param_groups[0]["lr"] = config.lr * rise * fall
            chosen = order[batch * config.batch_size : (batch + 1) * config.batch_size]
            total = self._nats(ids[chosen])
            optimizer.zero_grad(set_to_none=True)
            num_codes = (ids[chosen] != _ABSENT).sum()
            (total / num_codes).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
            optimizer.step()
            nats.append(total.item())
        last = nats[-batches:]
        return sum(last) / math.log(2) / (len(last) * config.batch_size)

    @torch.no_grad()
    def bits(self, ids: Tensor) -> float:
        """Return the bits per image of pictures."""
        size = self.config.batch_size
        parts = (ids[start : start + size] for start in range(0, len(ids), size))
        return sum(self._nats(part).item() for part in parts) / math.log(2) / len(ids)

    def _nats(self, ids: Tensor) -> Tensor:
        """Return the sum over all codes of some pictures."""
        flat = rearrange(ids, "b p c -> b (p c)")
        begin = torch.full_like(flat[:, :1], self.starts[-1])
        lengths = (ids[:, :, 0] != _ABSENT).sum(dim=1, keepdim=True) - 1
        opening = torch.cat([begin, begin + 1 + lengths], dim=1) if self.num_lengths else begin
        # What stands behind the end is read by nothing that counts.
        inputs = torch.cat([opening, flat[:, :-1].clamp_min(0)], dim=1)
        hidden = self.decoder(inputs, torch.arange(inputs.shape[1]).expand_as(inputs))
        head, first = self.decoder.head.weight, self.starts[-1] + 1
        total = torch.zeros(())
        if self.num_lengths:
            logits = hidden[:, 0] @ head[first:].T
            total = total + functional.cross_entropy(logits, lengths[:, 0], reduction="sum")
            hidden = hidden[:, 1:]
        hidden = rearrange(hidden, "b (p c) d -> b p c d", c=ids.shape[2])
        for book, (start, stop) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            logits = hidden[:, :, book] @ head[start:stop].T
            targets = ids[:, :, book].flatten()
            targets = torch.where(targets == _ABSENT, IGNORED, targets - start)
            total = total + functional.cross_entropy(
                logits.flatten(0, 1), targets, reduction="sum", ignore_index=IGNORED
            )
        return total
