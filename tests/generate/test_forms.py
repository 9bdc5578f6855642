from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import AbstractRule, SamplingParams
from mmgen.generate.events import TextDelta, TurnFailed, TurnFinished
from mmgen.generate.forms import Forms
from mmgen.generate.requests import CaptionRequest
from mmgen.generate.session import Session
from mmgen.text_tokenizer import BpeTokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6, "pattern": "^[a-z]+$"},
        "kind": {"enum": ["animal", "plant"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "kind", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def forms(session: Session) -> Forms:
    return Forms(session.codec.vocabulary, session.codec.text_tokenizer)


def picture(seed: int) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(array)


def answers(session: Session, rule: AbstractRule | None, n: int = 6, length: int = 60) -> list[str]:
    """Return what a hot model says about several pictures under a rule."""
    requests = [
        CaptionRequest(
            picture=picture(seed),
            seed=seed,
            sampling=SamplingParams(temperature=1.5),
            max_text_ids=length,
            rule=rule,
        )
        for seed in range(n)
    ]
    texts = [""] * n
    for event in session.run(requests):
        assert not isinstance(event, TurnFailed), event
        if isinstance(event, TextDelta):
            texts[event.index] += event.text
        if isinstance(event, TurnFinished) and rule is not None:
            assert event.end == "end"
    return texts


def test_json_answers_fit_their_schema(session: Session, forms: Forms) -> None:
    found = [json.loads(text) for text in answers(session, forms.json(SCHEMA), n=12)]
    for item in found:
        assert list(item) == ["name", "kind", "count"]
        assert re.fullmatch("[a-z]{1,6}", item["name"])
        assert item["kind"] in ("animal", "plant") and 0 <= item["count"] <= 99
    assert len({json.dumps(item) for item in found}) > 6
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(answers(session, None, n=1)[0])


def test_a_choice_is_one_of_the_texts(session: Session, forms: Forms) -> None:
    choices = ["a red fox", "a fox", 'a "quoted" fößchen']
    found = answers(session, forms.choice(choices), n=24)
    assert set(found) <= set(choices) and len(set(found)) > 1


def test_a_pattern_is_matched_as_a_whole(session: Session, forms: Forms) -> None:
    found = answers(session, forms.regex(r"[A-F]{2}-[0-9]{3}"))
    assert all(re.fullmatch(r"[A-F]{2}-[0-9]{3}", text) for text in found)
    assert len(set(found)) == len(found)


def test_a_grammar_may_nest(session: Session, forms: Forms) -> None:
    rule = forms.grammar('start: part\npart: "(" part ")" | "x"\n')
    for text in answers(session, rule, length=100):
        depth = text.count("(")
        assert text == "(" * depth + "x" + ")" * depth


def test_masks_are_exact(session: Session, forms: Forms) -> None:
    """An id is allowed exactly if its bytes extend what came to the beginning of some answer."""
    tokenizer = session.codec.text_tokenizer
    assert isinstance(tokenizer, BpeTokenizer)
    choices = ["a red fox", "a fox", "what is this?"]
    end_id = session.codec.vocabulary.end_id
    state = forms.choice(choices).begin()
    said = b""
    for id_ in [*tokenizer.encode("a fox"), end_id]:
        allowed = state.allowed()
        for other, piece in enumerate(tokenizer.pieces):
            begun = any(text.encode().startswith(said + piece) for text in choices)
            assert allowed[other] == (begun and bool(piece))
        assert allowed[end_id] == (said.decode() in choices)
        assert not allowed[len(tokenizer.pieces) : end_id].any()
        state.advance(id_)
        said += b"" if id_ == end_id else tokenizer.pieces[id_]


def test_states_of_one_rule_are_apart(session: Session, forms: Forms) -> None:
    rule = forms.choice(["ab", "cd"])
    first, second = rule.begin(), rule.begin()
    before = second.allowed()
    (a, *_) = session.codec.text_tokenizer.encode("a")
    first.advance(a)
    assert (second.allowed() == before).all() and (first.allowed() != before).any()


def test_an_answer_that_is_cut_off_says_so(session: Session, forms: Forms) -> None:
    request = CaptionRequest(picture=picture(0), max_text_ids=3, rule=forms.json(SCHEMA))
    (last,) = [item for item in session.run([request]) if isinstance(item, TurnFinished)]
    assert last.end == "length" and last.text.startswith('{"n')


def test_ruled_and_free_requests_run_together(session: Session, forms: Forms) -> None:
    def say(rules: list[AbstractRule | None]) -> list[str]:
        requests = [
            CaptionRequest(picture=picture(7), seed=3, max_text_ids=20, rule=rule) for rule in rules
        ]
        ends = [item for item in session.run(requests) if isinstance(item, TurnFinished)]
        return [item.text for item in sorted(ends, key=lambda item: item.index)]

    rule = forms.choice(["a red fox", "this"])
    assert say([None, rule]) == [*say([None]), *say([rule])]


def test_bad_forms_are_refused_at_once(forms: Forms) -> None:
    with pytest.raises(SettingsError, match=r"the JSON schema cannot be used: .*objekt"):
        forms.json({"type": "objekt"})
    with pytest.raises(SettingsError, match=r"the pattern '\(' cannot be used"):
        forms.regex("(")
    with pytest.raises(SettingsError, match="the grammar cannot be used"):
        forms.grammar("nothing here")
    with pytest.raises(SettingsError, match="a choice needs texts"):
        forms.choice([])
    with pytest.raises(SettingsError, match="none of them empty"):
        forms.choice(["a", ""])


def test_engines_without_rules_refuse_them(model_path: Path, forms: Forms) -> None:
    from mmgen.checkpoint import open_checkpoint
    from mmgen.generate.engine import AbstractEngine, SpanRequest, Step

    class Plain(AbstractEngine):
        context_length = 128
        num_unfinished = 0

        def submit(self, request: SpanRequest) -> int:
            raise AssertionError

        def step(self) -> list[Step]:
            return []

        def cancel(self, request_index: int) -> None:
            pass

    session = Session(open_checkpoint(model_path), Plain())
    with pytest.raises(EngineError, match="cannot hold answers to a form; use the torch engine"):
        session.begin(0, CaptionRequest(picture=picture(0), rule=forms.choice(["a"])))


def test_an_answer_goes_on_from_its_prefix(session: Session) -> None:
    request = CaptionRequest(picture=picture(1), prefix="a red", max_text_ids=4)
    turn = session.begin(0, request)
    tokenizer = session.codec.text_tokenizer
    start = tokenizer.encode("a red")
    plain = session.begin(1, CaptionRequest(picture=picture(1), max_text_ids=4))
    assert turn.span.prompt_ids == (*plain.span.prompt_ids, *start)
