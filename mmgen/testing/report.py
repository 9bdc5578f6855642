"""What the conformance kit says: one result for each check, the speeds, and the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["CheckResult", "Operation", "Outcome", "Report", "Speed"]

Operation: TypeAlias = Literal["encode", "decode"]
Outcome: TypeAlias = Literal["passed", "failed", "skipped"]

_SIGNS: dict[Outcome, str] = {"passed": "ok  ", "failed": "FAIL", "skipped": "n/a "}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What came of one check."""

    name: str
    """The check's name, one of `CHECKS`."""
    outcome: Outcome
    """`skipped` where the tokenizer does not promise what the check is about."""
    tried: str
    """What was done."""
    found: str
    """What came of it."""
    remedy: str
    """What to do about a failure; empty otherwise."""
    seconds: float
    """How long the check took."""

    def to_text(self) -> str:
        """Return a line, and for a failure two more."""
        line = f"{_SIGNS[self.outcome]}  {self.name}: {self.found}"
        if self.outcome != "failed":
            return line
        return f"{line}\n      tried: {self.tried}\n      remedy: {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One line of the speed card."""

    operation: Operation
    """What was timed."""
    batch_size: int
    """Pictures in one call."""
    images_per_second: float
    """The median over several calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of all checks of one tokenizer."""

    tokenizer: str
    """The class, as `module.Name`."""
    results: tuple[CheckResult, ...]
    """One for each check, in the order they ran."""
    speeds: tuple[Speed, ...]
    """The speed card; empty if speed was left out."""

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def is_passed(self) -> bool:
        return not self.failures

    def to_text(self) -> str:
        """Return all results for reading, failures with what to do about them."""
        lines = [result.to_text() for result in self.results]
        return "\n".join([*lines, *self.summary()])

    def summary(self) -> list[str]:
        """Return the speed card and the count of outcomes, as lines."""
        lines = [
            f"speed  {speed.operation} {speed.batch_size} at a time: "
            f"{speed.images_per_second:,.1f} images/s"
            for speed in self.speeds
        ]
        outcomes = [result.outcome for result in self.results]
        lines.append(
            f"{self.tokenizer}: {outcomes.count('passed')} passed, "
            f"{outcomes.count('failed')} failed, {outcomes.count('skipped')} do not apply"
        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "tokenizer": self.tokenizer,
            "is_passed": self.is_passed,
            "checks": [asdict(result) for result in self.results],
            "speeds": [asdict(speed) for speed in self.speeds],
        }
