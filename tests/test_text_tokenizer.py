"""Text is text: byte-level BPE and sentencepiece, whole and one id at a time."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmgen.errors import CheckpointError, SettingsError, VocabularyError
from mmgen.text_tokenizer import (
    BpeTokenizer,
    SentencePieceTokenizer,
    TextTokenizer,
    load_text_tokenizer,
    train_bpe,
)

TEXTS = [
    "draw a red apple",
    "a green apple and a red car",
    "naïve 日本 🍎 2024",
    "what is this?",
] * 3
SPECIALS = {"<|user|>": 1, "<|end|>": 2, "<|fsq|>": 1000}
BPE = train_bpe(TEXTS, num_ids=290)
# Any character; `st.text` would first build its table of all of Unicode, which takes seconds.
CHARACTERS = st.one_of(
    st.integers(0, 0x7F), st.integers(0x80, 0xD7FF), st.integers(0xE000, 0x10FFFF)
).map(chr)


def trained_sentencepiece() -> SentencePieceTokenizer:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


PIECES = trained_sentencepiece()
BOTH = pytest.mark.parametrize("tokenizer", [BPE, PIECES], ids=["bpe", "sentencepiece"])


def with_specials(tokenizer: BpeTokenizer, directory: Path) -> Path:
    ids = {token: tokenizer.num_ids + offset for token, offset in SPECIALS.items()}
    tokenizer.save(directory, special_tokens=ids)
    return directory


def definition(directory: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    return data


def streamed(tokenizer: TextTokenizer, ids: list[int]) -> str:
    stream = tokenizer.decode_stream()
    return "".join([stream.push(id_) for id_ in ids]) + stream.flush()


@given(st.lists(CHARACTERS).map("".join))
@example("<|user|>hi<|end|><|fsq|>")
@example("\x00\x1f\x7f\u2028 \t\r\n")
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_bpe_gives_any_text_back(text: str) -> None:
    ids = BPE.encode(text)
    assert all(0 <= id_ < BPE.num_ids for id_ in ids)
    assert BPE.decode(ids) == text
    assert streamed(BPE, ids) == text


@given(st.lists(st.integers(0, BPE.num_ids - 1)))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_bpe_decodes_any_ids_alike_whole_and_streamed(ids: list[int]) -> None:
    assert streamed(BPE, ids) == BPE.decode(ids)


@given(st.lists(st.integers(0, PIECES.num_ids - 1), max_size=20))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_sentencepiece_decodes_any_ids_alike_whole_and_streamed(ids: list[int]) -> None:
    assert streamed(PIECES, ids) == PIECES.decode(ids)


@BOTH
def test_a_stream_never_shows_half_a_character(tokenizer: TextTokenizer) -> None:
    text = "ß語🚗 ok 𠮷"
    stream = tokenizer.decode_stream()
    shown = ""
    num_silent = 0
    for id_ in tokenizer.encode(text):
        more = stream.push(id_)
        num_silent += not more
        shown += more
        assert "\ufffd" not in more
        assert text.startswith(shown)
    assert num_silent > 3
    assert shown == text
    assert stream.flush() == ""


@BOTH
def test_a_stream_that_stops_within_a_character_says_so(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("a𠮷")[:-1]
    stream = tokenizer.decode_stream()
    shown = "".join(stream.push(id_) for id_ in ids)
    assert shown == "a"
    assert set(stream.flush()) == {"\ufffd"}
    assert stream.flush() == ""


@BOTH
def test_a_broken_character_does_not_hold_up_what_follows(tokenizer: TextTokenizer) -> None:
    ids = [*tokenizer.encode("a𠮷")[:-1], *tokenizer.encode("b")]
    stream = tokenizer.decode_stream()
    shown = "".join(stream.push(id_) for id_ in ids)
    assert shown == tokenizer.decode(ids)
    assert shown.startswith("a\ufffd")
    assert shown.endswith("b")


def test_bpe_is_the_same_whenever_it_is_trained() -> None:
    again = train_bpe(reversed(TEXTS), num_ids=290)
    assert again.fingerprint == BPE.fingerprint
    assert again.encode(TEXTS[0]) == BPE.encode(TEXTS[0])
    assert train_bpe(TEXTS, num_ids=289).fingerprint != BPE.fingerprint
    assert train_bpe(TEXTS[:1], num_ids=290).fingerprint != BPE.fingerprint


def test_bpe_merges_what_is_frequent_and_splits_digits() -> None:
    assert BPE.num_ids == 290
    assert len(BPE.encode("red apple")) < len("red apple")
    numbers = train_bpe(["2024 2024 2024"] * 9, num_ids=300)
    assert len(numbers.encode("2024")) == 4


def test_bpe_of_nothing_is_the_bytes() -> None:
    empty = train_bpe([], num_ids=256)
    assert empty.num_ids == 256
    assert empty.decode(range(256)) == bytes(empty._piece(id_)[0] for id_ in range(256)).decode(
        "utf-8", errors="replace"
    )
    assert sorted(empty._piece(id_) for id_ in range(256)) == [bytes([byte]) for byte in range(256)]
    assert train_bpe(["abab" * 9] * 9, num_ids=300).num_ids < 300


@pytest.mark.parametrize(
    ("num_ids", "min_frequency", "message"),
    [(255, 2, "num_ids must be 256 or more"), (300, 0, "min_frequency must be 1 or more")],
)
def test_bpe_settings_are_checked(num_ids: int, min_frequency: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train_bpe(TEXTS, num_ids=num_ids, min_frequency=min_frequency)


@BOTH
def test_text_that_is_not_unicode_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(SettingsError, match=r"character 2 is the lone surrogate '\\udcff'"):
        tokenizer.encode("ab\udcff")
    with pytest.raises(SettingsError, match="lone surrogate"):
        train_bpe(["\ud800"], num_ids=256)


@BOTH
def test_ids_that_are_no_text_are_refused(tokenizer: TextTokenizer) -> None:
    for id_ in (-1, tokenizer.num_ids):
        with pytest.raises(VocabularyError, match=f"id {id_} is no text id; text ids are 0 to"):
            tokenizer.decode([id_])
        with pytest.raises(VocabularyError, match=f"id {id_} is no text id"):
            tokenizer.decode_stream().push(id_)


@BOTH
def test_saved_loaded_and_pickled_are_equal(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for again in (load_text_tokenizer(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert type(again) is type(tokenizer)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.num_ids == tokenizer.num_ids
        text = "draw 日本 <|user|>"
        assert again.encode(text) == tokenizer.encode(text)


def test_a_file_with_special_tokens_gives_the_same_text_tokenizer(tmp_path: Path) -> None:
    loaded = load_text_tokenizer(with_specials(BPE, tmp_path))
    assert isinstance(loaded, BpeTokenizer)
    assert loaded.num_ids == BPE.num_ids
    assert loaded.fingerprint == BPE.fingerprint
    text = "<|user|>draw<|fsq|> <|end|>"
    for tokenizer in (loaded, pickle.loads(pickle.dumps(loaded))):
        assert tokenizer.encode(text) == BPE.encode(text)
        assert max(tokenizer.encode(text)) < BPE.num_ids
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_keep_their_ids_for_other_readers_of_the_file(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    with_specials(BPE, tmp_path)
    reader = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ids = [BPE.num_ids + offset for offset in SPECIALS.values()]
    assert reader.convert_tokens_to_ids(list(SPECIALS)) == ids
    plain = BPE.encode("draw")
    assert reader("<|user|>draw<|end|><|fsq|>").input_ids == [ids[0], *plain, ids[1], ids[2]]
    assert reader.decode([ids[0], *plain, *ids[1:]], skip_special_tokens=True) == "draw"


def test_saving_leaves_the_special_tokens_of_another_model_behind(tmp_path: Path) -> None:
    loaded = load_text_tokenizer(with_specials(BPE, tmp_path))
    loaded.save(tmp_path)
    data = definition(tmp_path)
    assert data["added_tokens"] == []
    assert not set(SPECIALS) & set(data["model"]["vocab"])


def test_special_tokens_cannot_take_ids_or_names_of_text(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"'<\|user\|>' cannot have the id 289"):
        BPE.save(tmp_path, special_tokens={"<|user|>": 289})
    with pytest.raises(VocabularyError, match="'a' cannot have the id 290"):
        BPE.save(tmp_path, special_tokens={"a": 290})
    assert list(tmp_path.iterdir()) == []


def test_plain_added_tokens_are_text_and_special_ones_below_them_are_never_written(
    tmp_path: Path,
) -> None:
    BPE.save(tmp_path)
    data = definition(tmp_path)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] = [
        {"id": 290, "content": "<|user|>", "special": True, **flags},
        {"id": 291, "content": "<tool é>", "special": False, **flags},
        {"id": 292, "content": "<|end|>", "special": True, **flags},
    ]
    tokenizer = BpeTokenizer(json.dumps(data))
    assert tokenizer.num_ids == 292
    assert tokenizer.fingerprint != BPE.fingerprint
    text = "<|user|><tool é><|end|>"
    ids = tokenizer.encode(text)
    assert 290 not in ids
    assert 291 in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([290]) == ""
    assert pickle.loads(pickle.dumps(tokenizer)).encode(text) == ids


def test_tokens_that_are_not_spelled_in_bytes_are_their_text(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    data = definition(tmp_path)
    data["model"]["vocab"]["a b"] = 290
    assert BpeTokenizer(json.dumps(data)).decode([290]) == "a b"


def test_truncation_and_padding_of_a_file_do_not_apply(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    data = definition(tmp_path)
    data["truncation"] = {
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    data["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "a",
    }  # fmt: skip
    tokenizer = BpeTokenizer(json.dumps(data))
    assert tokenizer.encode("draw a red apple") == BPE.encode("draw a red apple")
    assert tokenizer.encode("a") == BPE.encode("a")
    assert tokenizer.fingerprint == BPE.fingerprint


def test_the_fingerprint_covers_merges_and_pretokenizer(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    for change in ("merges", "normalizer"):
        data = definition(tmp_path)
        if change == "merges":
            first, second, *rest = data["model"]["merges"]
            data["model"]["merges"] = [second, first, *rest]
        else:
            data["normalizer"] = {"type": "NFC"}
        assert BpeTokenizer(json.dumps(data)).fingerprint != BPE.fingerprint


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    data = definition(tmp_path)
    with pytest.raises(CheckpointError, match="only byte-level BPE is read"):
        BpeTokenizer(json.dumps({**data, "decoder": None}))
    words = {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"}
    with pytest.raises(CheckpointError, match="holds a model WordLevel"):
        BpeTokenizer(json.dumps({**data, "model": words}))
    del data["model"]["vocab"]["!"]
    data["model"]["vocab"]["other"] = 0
    with pytest.raises(CheckpointError, match=r"no token for 1 of the 256 bytes .*is 33\)"):
        BpeTokenizer(json.dumps(data))
    for text in ("", "{}", "not json"):
        with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
            BpeTokenizer(text)


@pytest.mark.parametrize("model", [b"", b"nothing", b"\x0a\xff"])
def test_bytes_that_are_no_sentencepiece_model_are_refused(model: bytes) -> None:
    with pytest.raises(CheckpointError, match="no sentencepiece model"):
        SentencePieceTokenizer(model)


def test_sentencepiece_gives_text_back_and_writes_no_control_ids() -> None:
    text = "draw a red 日本 <|user|></s>"
    ids = PIECES.encode(text)
    assert PIECES.decode(ids) == text
    assert not {1, 2} & set(ids)
    assert PIECES.num_ids == 320 or PIECES.num_ids > 260
    assert streamed(PIECES, [1, *ids, 2]) == text


def test_a_directory_holds_one_text_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json and no \.model"):
        load_text_tokenizer(tmp_path)
    PIECES.save(tmp_path)
    (tmp_path / "tokenizer.model").rename(tmp_path / "spiece.model")
    assert load_text_tokenizer(tmp_path).fingerprint == PIECES.fingerprint
    (tmp_path / "b.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"b\.model, spiece\.model; a text tokenizer is one"):
        load_text_tokenizer(tmp_path)
    BPE.save(tmp_path)
    assert load_text_tokenizer(tmp_path).fingerprint == BPE.fingerprint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for kind in (BpeTokenizer, SentencePieceTokenizer):
        with pytest.raises(CheckpointError, match="cannot be read"):
            kind.load(tmp_path / "missing")


def test_a_very_long_text_is_encoded_quickly() -> None:
    text = "a" * 100_000 + " " + "ab 1" * 10_000
    assert BPE.decode(BPE.encode(text)) == text
