"""Answers that must have a form: JSON of a schema, one of several choices, a pattern, a grammar.

The only door to llguidance, which works out for every step the ids that can still lead to a whole
answer. What comes out therefore is of the form, or was cut off by its length, which events tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgen.errors import SettingsError
from mmgen.generate.engine import AbstractRule, AbstractRuleState
from mmgen.text_tokenizer import BpeTokenizer, TextTokenizer
from mmgen.vocabulary import Vocabulary

__all__ = ["Forms"]

# Fixed separators: a model left to choose blanks may choose nothing else.
_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Forms:
    """Makes rules for one text tokenizer; keep it, as preparing the tokenizer takes a while."""

    def __init__(self, vocabulary: Vocabulary, text_tokenizer: TextTokenizer) -> None:
        """Prepare the tokenizer.

        Raises:
            SettingsError: llguidance is not installed, or the tokenizer is not byte-level BPE.
        """
        self._guidance = _llguidance()
        self._end_id = vocabulary.end_id
        self._tokenizer = self._guidance.LLTokenizer(
            self._guidance.TokenizerWrapper(_Pieces(text_tokenizer))
        )

    def json(self, schema: Mapping[str, Any]) -> AbstractRule:
        """Return the rule of a JSON schema; `{}` allows any JSON."""
        compile_schema = self._guidance.LLMatcher.grammar_from_json_schema
        try:
            grammar = compile_schema(json.dumps(schema), defaults=_JSON)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"the JSON schema cannot be used: {error}") from error
        return self._rule(grammar, "the JSON schema")

    def choice(self, choices: Sequence[str]) -> AbstractRule:
        """Return the rule that an answer is one of some texts."""
        if not choices or not all(choices):
            raise SettingsError("a choice needs texts to choose from, and none of them empty")
        listed = " | ".join(json.dumps(text, ensure_ascii=False) for text in choices)
        return self._rule(f"start: {listed}\n", "the choice")

    def regex(self, pattern: str) -> AbstractRule:
        """Return the rule that a whole answer matches a pattern, in the syntax of Rust's regex."""
        grammar = self._guidance.LLMatcher.grammar_from_regex(pattern)
        return self._rule(grammar, f"the pattern {pattern!r}")

    def grammar(self, lark: str) -> AbstractRule:
        """Return the rule of a context-free grammar in Lark's syntax."""
        return self._rule(self._guidance.LLMatcher.grammar_from_lark(lark), "the grammar")

    def _rule(self, grammar: str, what: str) -> AbstractRule:
        check = self._guidance.LLMatcher.validate_grammar_with_warnings
        is_error, messages = check(grammar, self._tokenizer)
        if is_error:
            raise SettingsError(f"{what} cannot be used: {' '.join(messages[0].split())[:300]}")
        return _FormRule(self._guidance, self._tokenizer, grammar, self._end_id)


class _FormRule(AbstractRule):
    """A grammar, ready to begin."""

    def __init__(self, guidance: Any, tokenizer: Any, grammar: str, end_id: int) -> None:
        self._guidance = guidance
        self._tokenizer = tokenizer
        self._end_id = end_id
        # Compiled once; every span begins with a copy.
        self._matcher = guidance.LLMatcher(tokenizer, grammar, log_level=0)

    def begin(self) -> AbstractRuleState:
        return _FormState(self._matcher.deep_copy(), self._tokenizer.eos_token, self._end_id)


class _FormState(AbstractRuleState):
    """The matcher numbers ids like the text tokenizer, and has its own end after them."""

    def __init__(self, matcher: Any, num_text_ids: int, end_id: int) -> None:
        self._matcher = matcher
        self._num_text_ids = num_text_ids
        self._end_id = end_id
        self._words = np.zeros(num_text_ids // 32 + 1, dtype=np.uint32)

    def allowed(self) -> npt.NDArray[np.bool_]:
        known = np.zeros(self._end_id + 1, dtype=np.bool_)
        if self._matcher.is_error():
            return known
        words = self._words
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if not self._matcher.is_error():
            bits = np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.bool_)
            known[: self._num_text_ids] = bits[: self._num_text_ids]
            known[self._end_id] = bits[self._num_text_ids]
        return known

    def advance(self, id_: int) -> None:
        self._matcher.consume_token(self._num_text_ids if id_ == self._end_id else id_)


class _Pieces:
    """A text tokenizer as llguidance wants it: the bytes of every id, and one id for the end."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        if not isinstance(tokenizer, BpeTokenizer):
            raise SettingsError(
                "answers can be held to a form only with byte-level BPE; this model's text "
                "tokenizer is another"
            )
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.num_ids
        self.bos_token_id = None
        self.tokens = [*tokenizer.pieces, b"<|end|>"]
        self.special_token_ids = [tokenizer.num_ids]

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text.decode() if isinstance(text, bytes) else text)


def _llguidance() -> Any:
    try:
        return import_module("llguidance")
    except ImportError as error:
        raise SettingsError(
            "answers of a given form need llguidance, which is not installed; install mmgen[batch]"
        ) from error
