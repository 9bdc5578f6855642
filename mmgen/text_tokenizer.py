"""Text to ids and back: byte-level BPE from `tokenizer.json`, sentencepiece from `.model`.

The only door to both packages. Whatever a text contains, it is encoded as text: the ids of special
tokens are written by the grammar and by nothing else. Decoding is also offered one id at a time,
for text that is shown while it is generated.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from mmgen.errors import CheckpointError, SettingsError, VocabularyError

__all__ = [
    "AbstractDecodeStream",
    "BpeTokenizer",
    "SentencePieceTokenizer",
    "TextTokenizer",
    "load_text_tokenizer",
    "train_bpe",
]

BPE_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
NO_SPECIAL_TOKENS: Mapping[str, int] = MappingProxyType({})


class AbstractDecodeStream(ABC):
    """Turns ids into text one at a time and keeps back what is not a whole character yet."""

    @abstractmethod
    def push(self, id_: int) -> str:
        """Take one more id; return the text that is certain now, perhaps none."""

    @abstractmethod
    def flush(self) -> str:
        """Return what was kept back, with U+FFFD for bytes that are no character."""


class TextTokenizer(ABC):
    """Text to ids in `[0, num_ids)` and back."""

    @property
    @abstractmethod
    def num_ids(self) -> int:
        """One more than the largest id of text; special tokens stored above are not counted."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 in hex of all that decides which ids a text gets."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; never the id of a special token, even if the text names one."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, with U+FFFD for bytes that are no character."""

    @abstractmethod
    def decode_stream(self) -> AbstractDecodeStream:
        """Return a decoder for ids that arrive one at a time."""

    @abstractmethod
    def save(
        self, directory: Path, *, special_tokens: Mapping[str, int] = NO_SPECIAL_TOKENS
    ) -> None:
        """Write into an existing directory what `load_text_tokenizer` reads.

        Args:
            special_tokens: tokens to name in the file at these ids, for other readers of it; not
                part of the text ids. A sentencepiece model has no place for them.
        """


class BpeTokenizer(TextTokenizer):
    """Byte-level BPE through `tokenizers`; any text has ids, and they give the same text back."""

    def __init__(self, definition: str) -> None:
        """Take the contents of a `tokenizer.json`; special tokens above the text ids are left."""
        data = json.loads(_open_definition(definition).to_str())
        _check_byte_level(data)
        specials = {item["content"]: item["id"] for item in data["added_tokens"] if item["special"]}
        plain = [item for item in data["added_tokens"] if not item["special"]]
        vocab = data["model"]["vocab"]
        pieces: dict[int, bytes] = {item["id"]: item["content"].encode() for item in plain}
        for piece, id_ in vocab.items():
            if piece not in specials:
                pieces.setdefault(id_, _bytes_of(piece))
        self._num_ids: int = max(pieces) + 1
        self._pieces = [pieces.get(id_, b"") for id_ in range(self._num_ids)]
        for token, id_ in specials.items():
            if id_ >= self._num_ids:
                vocab.pop(token, None)
        data["added_tokens"] = [item for item in data["added_tokens"] if item["id"] < self._num_ids]
        self._data: dict[str, Any] = data
        self._tokenizer = _open_definition(json.dumps(data))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True

    def __reduce__(self) -> tuple[type[BpeTokenizer], tuple[str]]:
        return (BpeTokenizer, (json.dumps(self._data),))

    @classmethod
    def load(cls, path: Path) -> BpeTokenizer:
        """Load a `tokenizer.json`."""
        return cls(_read(path).decode("utf-8", errors="replace"))

    @property
    def num_ids(self) -> int:
        return self._num_ids

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes that each id stands for; none for ids that are not in use."""
        return tuple(self._pieces)

    @property
    def fingerprint(self) -> str:
        specials = {token["content"] for token in self._data["added_tokens"] if token["special"]}
        model = self._data["model"]
        vocab = {piece: id_ for piece, id_ in model["vocab"].items() if piece not in specials}
        kept = {
            "normalizer": self._data["normalizer"],
            "pre_tokenizer": self._data["pre_tokenizer"],
            "decoder": self._data["decoder"],
            "model": {**model, "vocab": vocab},
            "added_tokens": [token for token in self._data["added_tokens"] if not token["special"]],
        }
        canonical = json.dumps(_without_defaults(kept), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(_checked(text), add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(map(self._piece, ids)).decode("utf-8", errors="replace")

    def decode_stream(self) -> AbstractDecodeStream:
        return _ByteStream(self._piece)

    def save(
        self, directory: Path, *, special_tokens: Mapping[str, int] = NO_SPECIAL_TOKENS
    ) -> None:
        """Write `tokenizer.json`, with these special tokens.

        Their ids need not be adjacent: each is an entry of the model's own table too, since the
        format numbers tokens that are only added one after another.
        """
        data = json.loads(json.dumps(self._data))
        vocab = data["model"]["vocab"]
        for token, id_ in special_tokens.items():
            if id_ < self.num_ids or token in vocab:
                raise VocabularyError(
                    f"special token {token!r} cannot have the id {id_}: text has the ids 0 to "
                    f"{self.num_ids - 1}, and its tokens have names of their own"
                )
            vocab[token] = id_
            data["added_tokens"].append(_added_token(token, id_))
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (directory / BPE_FILE).write_text(text + "\n", encoding="utf-8")

    def _piece(self, id_: int) -> bytes:
        _check_id(id_, self.num_ids)
        return self._pieces[id_]


class SentencePieceTokenizer(TextTokenizer):
    """A sentencepiece model; what it does not know becomes its unknown piece."""

    def __init__(self, model: bytes) -> None:
        """Take the contents of a `.model` file."""
        try:
            # An empty model would be taken for no model at all.
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model or b"-")
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"this is no sentencepiece model: {error}") from error
        self._model = model

    def __reduce__(self) -> tuple[type[SentencePieceTokenizer], tuple[bytes]]:
        return (SentencePieceTokenizer, (self._model,))

    @classmethod
    def load(cls, path: Path) -> SentencePieceTokenizer:
        """Load a `.model` file."""
        return cls(_read(path))

    @property
    def num_ids(self) -> int:
        return int(self._processor.vocab_size())

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._model).hexdigest()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(_checked(text))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        checked = [_check_id(id_, self.num_ids) for id_ in ids]
        return str(self._processor.decode(checked))

    def decode_stream(self) -> AbstractDecodeStream:
        return _PieceStream(self, self._byte)

    def save(
        self, directory: Path, *, special_tokens: Mapping[str, int] = NO_SPECIAL_TOKENS
    ) -> None:
        (directory / SENTENCEPIECE_FILE).write_bytes(self._model)

    def _byte(self, id_: int) -> bytes:
        if not self._processor.is_byte(id_):
            return b""
        return bytes([int(self._processor.id_to_piece(id_)[3:5], 16)])


class _ByteStream(AbstractDecodeStream):
    """For tokenizers whose ids are bytes."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id_: int) -> str:
        return self._decoder.decode(self._piece(id_))

    def flush(self) -> str:
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class _PieceStream(AbstractDecodeStream):
    """For tokenizers whose text depends on where a piece stands: the difference of two texts."""

    def __init__(self, tokenizer: TextTokenizer, byte: Callable[[int], bytes]) -> None:
        self._tokenizer = tokenizer
        self._byte = byte
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ids: list[int] = []
        self._num_shown = 0

    def push(self, id_: int) -> str:
        self._ids.append(_check_id(id_, self._tokenizer.num_ids))
        byte = self._byte(id_)
        self._decoder.decode(byte, final=not byte)
        held, _ = self._decoder.getstate()
        return "" if held else self.flush()

    def flush(self) -> str:
        text = self._tokenizer.decode(self._ids)[self._num_shown :]
        self._num_shown += len(text)
        return text


def load_text_tokenizer(directory: Path) -> TextTokenizer:
    """Load the text tokenizer of a directory: `tokenizer.json`, or else its one `.model` file."""
    if (directory / BPE_FILE).is_file():
        return BpeTokenizer.load(directory / BPE_FILE)
    found = sorted(directory.glob("*.model"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no .model"
        raise CheckpointError(
            f"{directory} has no {BPE_FILE} and {names}; "
            f"a text tokenizer is one {BPE_FILE} or one .model file"
        )
    return SentencePieceTokenizer.load(found[0])


def train_bpe(texts: Iterable[str], *, num_ids: int, min_frequency: int = 2) -> BpeTokenizer:
    """Train byte-level BPE; equal texts in any order give an equal tokenizer.

    Digits stand alone and there are no special tokens. Few texts may give fewer ids than asked.

    Args:
        num_ids: 256 for the bytes and the rest for merges.
        min_frequency: how often a pair must occur to be merged.
    """
    if num_ids < len(BYTE_OF_CHARACTER):
        raise SettingsError(f"num_ids must be 256 or more, one for each byte, got {num_ids}")
    if min_frequency < 1:
        raise SettingsError(f"min_frequency must be 1 or more, got {min_frequency}")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=num_ids,
        min_frequency=min_frequency,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(map(_checked, texts), trainer)
    return BpeTokenizer(tokenizer.to_str())


def _byte_of_character() -> dict[str, int]:
    """Return which byte each of the 256 printable stand-ins of byte-level BPE means."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()


def _open_definition(definition: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(definition)
    # The package raises bare `Exception` for whatever it cannot read.
    except Exception as error:
        raise CheckpointError(f"{BPE_FILE} cannot be read: {error}") from error


def _check_byte_level(data: Mapping[str, Any]) -> None:
    model = data["model"]
    decoder = json.dumps(data["decoder"])
    if model["type"] != "BPE" or '"ByteLevel"' not in decoder:
        raise CheckpointError(
            f"{BPE_FILE} holds a model {model['type']} with the decoder {decoder}; "
            "only byte-level BPE is read (for others take their sentencepiece .model)"
        )
    missing = [byte for char, byte in BYTE_OF_CHARACTER.items() if char not in model["vocab"]]
    if missing:
        raise CheckpointError(
            f"{BPE_FILE} has no token for {len(missing)} of the 256 bytes "
            f"(the first is {missing[0]}), so that some text would be lost"
        )


def _bytes_of(piece: str) -> bytes:
    """Return the bytes of a token, or the text of one that is not spelled in stand-ins."""
    if BYTE_OF_CHARACTER.keys() >= set(piece):
        return bytes([BYTE_OF_CHARACTER[character] for character in piece])
    return piece.encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"the text tokenizer cannot be read: {error}") from error


def _check_id(id_: int, num_ids: int) -> int:
    if not 0 <= id_ < num_ids:
        raise VocabularyError(f"id {id_} is no text id; text ids are 0 to {num_ids - 1}")
    return int(id_)


def _checked(text: str) -> str:
    """Return the text, unless it has characters that cannot be encoded in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"the text is not Unicode: character {error.start} is the lone surrogate "
            f"{text[error.start]!r}"
        ) from error
    return text


def _added_token(token: str, id_: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id_, "content": token, **flags, "special": True}


def _without_defaults(value: Any) -> Any:
    """Drop null and false entries, which a newer library may write out and an older one not."""
    if isinstance(value, dict):
        kept = {key: _without_defaults(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item is not False}
    return value
