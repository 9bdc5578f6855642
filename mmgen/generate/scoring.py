"""How likely a model finds a given text: the log-likelihood of words as its next turn.

Nothing is generated. The text is laid behind the document that asks for it, one packed pass of the
decoder scores every id, and many pairs share a pass. With it captions can be ranked, pictures
compared with their prompts, and an answer chosen among given ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mmgen.checkpoint import Checkpoint
from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.errors import SettingsError
from mmgen.generate.requests import check_prompt
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.model import Decoder
from mmgen.pictures import PictureSource
from mmgen.visual_tokenizer import Codes

__all__ = ["ScoreRequest", "Scorer", "TextScore", "log_likelihoods", "scorer_of"]

MAX_LOGITS = 1 << 24
"""Most scores held at once; as 32-bit floats these are 64 MiB."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A document and the text whose likelihood as its next turn is wanted."""

    document: Document
    """Ends with the turn of a user."""
    text: str
    """The whole answer."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise SettingsError("there is no text to score; give some words")
        if not self.document.turns or self.document.turns[-1].role != "user":
            raise SettingsError("a text is scored as the answer to a user's turn; end with one")


@dataclass(frozen=True, slots=True)
class TextScore:
    """How likely a text is as a whole turn, in natural logarithms."""

    ids: tuple[int, ...]
    """The text's ids and the mark that ends the turn."""
    log_likelihoods: tuple[float, ...]
    """Of each id, given all before it, among all ids of the vocabulary."""

    @property
    def log_likelihood(self) -> float:
        """Of the whole turn. Longer texts have lower ones."""
        return math.fsum(self.log_likelihoods)

    @property
    def mean(self) -> float:
        """Per id, the end of the turn counted; comparable among texts of different lengths."""
        return self.log_likelihood / len(self.ids)


class Scorer:
    """Scores texts with a checkpoint's decoder. Several threads may use one at a time each."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        codec: DocumentCodec,
        decoder: Decoder,
        *,
        max_batch_ids: int = 4096,
    ) -> None:
        """Take what a session already holds; weights are shared, not copied.

        Args:
            codec: needs the encoder of the visual tokenizer where pictures are not codes yet.
            max_batch_ids: most ids, filling included, in one pass of the decoder.
        """
        if max_batch_ids < 1:
            raise SettingsError(f"max_batch_ids must be 1 or more, got {max_batch_ids}")
        self._generation = checkpoint.generation
        self._codec = codec
        self._decoder = decoder
        self._max_batch_ids = max_batch_ids

    def caption_request(
        self,
        picture: PictureSource | Codes,
        text: str,
        prompt: str | None = None,
        *,
        tokenizer: str | None = None,
    ) -> ScoreRequest:
        """Return the request for a text about a picture, asked for as captions are.

        Args:
            prompt: the question; the checkpoint's own if not given.
            tokenizer: which visual tokenizer looks, or made the codes.
        """
        name = tokenizer or self._generation.tokenizer
        if isinstance(picture, Codes):
            image = Image(codes=picture, tokenizer=name)
        else:
            image = Image(picture=picture, tokenizer=name)
        question = self._generation.caption_prompt if prompt is None else prompt
        check_prompt(question)
        return ScoreRequest(Document(turns=(Turn("user", (image, Text(question))),)), text)

    def score(self, requests: Sequence[ScoreRequest]) -> list[TextScore]:
        """Return the score of each request, in order.

        Raises:
            SettingsError: a document and its text do not fit the context.
        """
        end_id = self._codec.vocabulary.end_id
        prompts: dict[int, list[int]] = {}
        pairs: list[tuple[list[int], list[int]]] = []
        for request in requests:
            # Several texts about one document, which then is encoded once.
            key = id(request.document)
            if key not in prompts:
                prompts[key] = self._codec.encode_prompt(request.document)
            answer = [*self._codec.text_tokenizer.encode(request.text), end_id]
            pairs.append((prompts[key], answer))
        scored = log_likelihoods(self._decoder, pairs, max_batch_ids=self._max_batch_ids)
        return [
            TextScore(tuple(answer), tuple(values))
            for (_, answer), values in zip(pairs, scored, strict=True)
        ]


def scorer_of(session: Session) -> Scorer | None:
    """Return a scorer with a session's decoder, or None if its engine keeps that to itself."""
    engine = session.engine
    if not isinstance(engine, TorchEngine):
        return None
    return Scorer(session.checkpoint, session.codec, engine.decoder)


@torch.inference_mode()
def log_likelihoods(
    decoder: Decoder,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    max_batch_ids: int = 4096,
) -> list[list[float]]:
    """Return the natural log-likelihood of every id of each continuation.

    Args:
        pairs: a prompt and its continuation each, both of at least one id.
        max_batch_ids: most ids, filling included, in one pass.
    """
    for prompt, answer in pairs:
        assert prompt and answer, "a prompt and its continuation have an id or more each"
        total, limit = len(prompt) + len(answer), decoder.config.context_length
        if total > limit:
            raise SettingsError(
                f"the document takes {len(prompt)} tokens and the text {len(answer)}, {total} of "
                f"the {limit} that fit; shorten them"
            )
    scores: list[list[float]] = [[] for _ in pairs]
    for members in _passes([len(prompt) + len(answer) for prompt, answer in pairs], max_batch_ids):
        batch = [pairs[member] for member in members]
        for member, values in zip(members, _pass(decoder, batch), strict=True):
            scores[member] = values
    return scores


def _passes(lengths: Sequence[int], max_batch_ids: int) -> Iterator[list[int]]:
    """Yield places of sequences that fit a pass together, like lengths beside each other."""
    members: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if members and lengths[place] * (len(members) + 1) > max_batch_ids:
            yield members
            members = []
        members.append(place)
    if members:
        yield members


def _pass(
    decoder: Decoder, batch: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[list[float]]:
    """Score a batch; rows are filled on the right, where nothing that counts can see it."""
    device = decoder.embedding.weight.device
    # The last id of a continuation predicts nothing that is wanted.
    rows = [[*prompt, *answer[:-1]] for prompt, answer in batch]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    positions = torch.arange(width, device=device).expand(len(rows), -1)
    hidden = decoder(ids, positions)
    places = [
        (number, len(prompt) - 1 + offset)
        for number, (prompt, answer) in enumerate(batch)
        for offset in range(len(answer))
    ]
    chosen = hidden[tuple(torch.tensor(places, device=device).T)]
    targets = torch.tensor([id_ for _, answer in batch for id_ in answer], device=device)
    num_at_once = max(1, MAX_LOGITS // decoder.config.vocab_size)
    values: list[float] = []
    for start in range(0, len(places), num_at_once):
        part = slice(start, start + num_at_once)
        logits = decoder.logits(chosen[part]).float()
        picked = logits.gather(1, targets[part, None])[:, 0] - logits.logsumexp(dim=1)
        values += picked.tolist()
    value = iter(values)
    return [[next(value) for _ in answer] for _, answer in batch]
