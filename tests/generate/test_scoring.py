from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen3ForCausalLM

from mmgen.document import Document, Text, Turn
from mmgen.errors import PictureError, SettingsError
from mmgen.generate.requests import CaptionRequest
from mmgen.generate.scoring import Scorer, ScoreRequest, log_likelihoods
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine

TEXTS = ("a fox", "a red fox is this", "?", "what what what what what")


@pytest.fixture(scope="module")
def scorer(session: Session) -> Scorer:
    return make_scorer(session)


def make_scorer(session: Session, max_batch_ids: int = 4096) -> Scorer:
    assert isinstance(session.engine, TorchEngine)
    return Scorer(
        session.checkpoint, session.codec, session.engine.decoder, max_batch_ids=max_batch_ids
    )


def picture(seed: int) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(array)


def plain_scores(
    model_path: Path, prompt: Sequence[int], answer: Sequence[int]
) -> tuple[float, ...]:
    """Log-softmax of the logits of `transformers`, one sequence at a time, nothing shared."""
    model = Qwen3ForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0]
    shares = logits.log_softmax(dim=1)
    return tuple(shares[len(prompt) + offset - 1, id_].item() for offset, id_ in enumerate(answer))


def test_scores_are_those_of_a_plain_forward_pass(
    scorer: Scorer, session: Session, model_path: Path
) -> None:
    requests = [scorer.caption_request(picture(seed), text) for seed, text in enumerate(TEXTS)]
    scores = scorer.score(requests)
    codec = session.codec
    for request, score in zip(requests, scores, strict=True):
        prompt = codec.encode_prompt(request.document)
        answer = [*codec.text_tokenizer.encode(request.text), codec.vocabulary.end_id]
        assert score.ids == tuple(answer)
        expected = plain_scores(model_path, prompt, answer)
        assert score.log_likelihoods == pytest.approx(expected, abs=2e-4)
        assert score.log_likelihood == pytest.approx(sum(expected), abs=1e-3)
        assert score.mean == pytest.approx(sum(expected) / len(answer), abs=1e-3)
    assert len({round(score.log_likelihood, 3) for score in scores}) == len(TEXTS)


def test_a_score_does_not_depend_on_its_neighbours(session: Session, scorer: Scorer) -> None:
    requests = [scorer.caption_request(picture(0), text) for text in TEXTS]
    together = scorer.score(requests)
    for narrow in (1, 100, 200):
        apart = make_scorer(session, max_batch_ids=narrow).score(requests)
        for one, other in zip(together, apart, strict=True):
            assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-4)


def test_logits_in_small_parts_give_the_same(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [scorer.caption_request(picture(0), text) for text in TEXTS]
    whole = scorer.score(requests)
    monkeypatch.setattr("mmgen.generate.scoring.MAX_LOGITS", 1)
    parts = scorer.score(requests)
    for one, other in zip(whole, parts, strict=True):
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-4)


def test_codes_and_their_picture_score_alike(session: Session, scorer: Scorer) -> None:
    image = picture(3)
    (codes,) = session.codec.encode_images([image], "palette")
    by_picture, by_codes = scorer.score(
        [scorer.caption_request(image, "a fox"), scorer.caption_request(codes, "a fox")]
    )
    assert by_picture.log_likelihoods == pytest.approx(by_codes.log_likelihoods, abs=1e-5)


def test_the_question_and_the_picture_count(scorer: Scorer) -> None:
    scores = scorer.score(
        [
            scorer.caption_request(picture(0), "a fox"),
            scorer.caption_request(picture(1), "a fox"),
            scorer.caption_request(picture(0), "a fox", "draw this"),
        ]
    )
    assert len({round(score.log_likelihood, 4) for score in scores}) == 3


def test_probabilities_of_all_next_ids_add_up_to_one(session: Session) -> None:
    assert isinstance(session.engine, TorchEngine)
    decoder = session.engine.decoder
    pairs = [([1, 2, 3], [id_]) for id_ in range(decoder.config.vocab_size)]
    total = math.fsum(math.exp(values[0]) for values in log_likelihoods(decoder, pairs))
    assert total == pytest.approx(1.0, abs=1e-4)


def test_the_greedy_answer_is_the_likeliest_first_id(session: Session, scorer: Scorer) -> None:
    request = CaptionRequest(picture=picture(5), max_text_ids=1, prompt="what is this?")
    begun = session.begin(0, request)
    prompt = list(begun.span.prompt_ids)
    text_ids = range(session.codec.vocabulary.num_text_ids)
    assert isinstance(session.engine, TorchEngine)
    scored = log_likelihoods(session.engine.decoder, [(prompt, [id_]) for id_ in text_ids])
    best = max(text_ids, key=lambda id_: scored[id_][0])
    position = torch.arange(len(prompt))[None]
    with torch.no_grad():
        decoder = session.engine.decoder
        logits = decoder.logits(decoder(torch.tensor([prompt]), position)[0, -1])
    assert best == int(logits[: len(text_ids)].argmax())


def test_nothing_to_score_gives_nothing(scorer: Scorer) -> None:
    assert scorer.score([]) == []


def test_bad_requests_are_refused(session: Session, scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no text to score"):
        scorer.caption_request(picture(0), " ")
    with pytest.raises(SettingsError, match="the prompt is empty"):
        scorer.caption_request(picture(0), "a fox", "")
    with pytest.raises(SettingsError, match="as the answer to a user's turn"):
        ScoreRequest(Document(segments=(Text("what is this?"),)), "a fox")
    with pytest.raises(SettingsError, match="as the answer to a user's turn"):
        ScoreRequest(
            Document(turns=(Turn("user", (Text("a"),)), Turn("assistant", (Text("b"),)))), "a fox"
        )
    long = scorer.caption_request(picture(0), "what " * 200)
    with pytest.raises(SettingsError, match=r"the document takes \d+ tokens and the text \d+"):
        scorer.score([long])
    with pytest.raises(PictureError, match="there is no file"):
        scorer.score([scorer.caption_request(tmp_path / "none.png", "a fox")])
    with pytest.raises(SettingsError, match="max_batch_ids must be 1 or more, got 0"):
        make_scorer(session, max_batch_ids=0)
