"""How captions are asked for and held: prompts, beginnings, words, forms, how many tries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmgen.batch.rows import Row
from mmgen.batch.templates import Template, values_of
from mmgen.document import DocumentCodec
from mmgen.errors import SettingsError
from mmgen.generate.engine import AbstractRule
from mmgen.generate.forms import Forms
from mmgen.generate.requests import check_prompt
from mmgen.generate.words import Words, WordSettings

__all__ = ["MAX_TRIES", "AnswerForm", "CaptionControls", "RuleMaker"]

MAX_TRIES = 64
"""Most answers or pictures of which the best is kept."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """A form that every answer must have."""

    kind: Literal["json", "choice", "regex", "grammar"]
    text: str
    """A JSON schema, choices with a line each, a pattern, or a grammar."""

    def __post_init__(self) -> None:
        if self.kind == "json":
            try:
                schema = json.loads(self.text)
            except ValueError as error:
                raise SettingsError(f"the JSON schema is not JSON: {error}") from error
            if not isinstance(schema, dict):
                raise SettingsError("a JSON schema is an object")

    def rule(self, forms: Forms) -> AbstractRule:
        """Return the rule of the form.

        Raises:
            SettingsError: it cannot be used.
        """
        match self.kind:
            case "json":
                return forms.json(json.loads(self.text))
            case "choice":
                return forms.choice([line for line in self.text.splitlines() if line])
            case "regex":
                return forms.regex(self.text)
            case "grammar":
                return forms.grammar(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionControls:
    """How captions are asked for and which are kept."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    """Templates of what to ask, by the name of the caption; none asks one question as usual."""
    prefix: str = ""
    """Template of how every caption begins."""
    words: WordSettings = field(default_factory=WordSettings)
    form: AnswerForm | None = None
    tries: int = 1
    """Answers to each question, of which the one that the model finds likeliest is kept."""
    has_scores: bool = False
    """Whether results tell how likely the model finds each caption."""
    given: str | None = None
    """Field with a caption whose likelihood results tell too."""

    def __post_init__(self) -> None:
        for template in (*self.prompts.values(), self.prefix):
            Template(template)
        if not 1 <= self.tries <= MAX_TRIES:
            raise SettingsError(f"best-of must be within 1 and {MAX_TRIES}, got {self.tries}")
        if self.form is not None and not self.words.is_free:
            raise SettingsError(
                "words and a form exclude each other; say in the form which words may come"
            )

    @property
    def needs_scores(self) -> bool:
        """Whether the model must judge texts."""
        return self.has_scores or self.tries > 1 or self.given is not None

    def questions(self, row: Row, usual: str) -> dict[str, str]:
        """Return what to ask of a row, by the name of the caption.

        Args:
            usual: what is asked where nothing else is said.

        Raises:
            SettingsError: a field that a template names is missing.
        """
        if not self.prompts:
            return {"caption": usual}
        values = values_of(row)
        questions = {name: Template(text).fill(values) for name, text in self.prompts.items()}
        for question in questions.values():
            check_prompt(question)
        return questions

    def beginning(self, row: Row) -> str:
        """Return how the captions of a row begin."""
        return Template(self.prefix).fill(values_of(row)) if self.prefix else ""

    def given_text(self, row: Row) -> str | None:
        """Return the caption whose likelihood is asked for."""
        if self.given is None:
            return None
        value = row.fields.get(self.given)
        if not isinstance(value, str) or not value.strip():
            known = ", ".join(row.fields) or "none"
            raise SettingsError(
                f"the row has no text in the field {self.given!r} to score; its fields are: {known}"
            )
        return value

    def check(self, row: Row) -> None:
        """Refuse a row that lacks a field."""
        self.questions(row, "")
        self.beginning(row)
        self.given_text(row)

    def unmet(self, text: str, *, is_cut: bool) -> str | None:
        """Return what an answer lacks, or None if it is as it must be."""
        if self.form is not None and is_cut:
            return "it was cut off before its form was complete; raise --max-tokens"
        missing = self.words.missing(text)
        if missing:
            return f"it ended by its length without saying {', '.join(map(repr, missing))}"
        return None

    def content(self, text: str) -> Any:
        """Return what a caption of JSON says."""
        is_json = self.form is not None and self.form.kind == "json"
        return json.loads(text) if is_json else None


class RuleMaker:
    """Makes the rules of captions for one model; what they share is prepared once."""

    def __init__(self, controls: CaptionControls, codec: DocumentCodec) -> None:
        """Prepare what is needed.

        Raises:
            SettingsError: the form cannot be used, or with this model no form and no words can.
        """
        self._controls = controls
        self._words: Words | None = None
        self._form: AbstractRule | None = None
        if controls.form is not None:
            forms = Forms(codec.vocabulary, codec.text_tokenizer)
            self._form = controls.form.rule(forms)
        elif not controls.words.is_free:
            self._words = Words(codec.vocabulary, codec.text_tokenizer)

    def rule(self, beginning: str) -> AbstractRule | None:
        """Return the rule of a caption that begins so; None if anything may come."""
        if self._words is not None:
            return self._words.rule(self._controls.words, beginning)
        return self._form
