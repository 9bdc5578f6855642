"""Running the checks of the contract against one tokenizer."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from mmgen.errors import SettingsError
from mmgen.testing.decoding import DECODING_CHECKS
from mmgen.testing.encoding import ENCODING_CHECKS
from mmgen.testing.identity import IDENTITY_CHECKS
from mmgen.testing.report import CheckResult, Outcome, Report
from mmgen.testing.speed import SPEED_CHECKS
from mmgen.testing.subject import Check, Fault, NotApplicable, Subject
from mmgen.testing.training import TRAINING_CHECKS
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Picture

__all__ = ["CHECKS", "check"]

_CHECKS = (
    *ENCODING_CHECKS, *DECODING_CHECKS, *IDENTITY_CHECKS, *TRAINING_CHECKS, *SPEED_CHECKS
)  # fmt: skip

CHECKS: tuple[str, ...] = tuple(item.name for item in _CHECKS)
"""The names of all checks, in the order they run."""


def check(
    tokenizer: AbstractVisualTokenizer | type[AbstractVisualTokenizer],
    *,
    weights: Path | None = None,
    pictures: Sequence[Picture] = (),
    only: Collection[str] = CHECKS,
    skip: Collection[str] = (),
    on_result: Callable[[CheckResult], None] | None = None,
) -> Report:
    """Try everything that a visual tokenizer promises and report on each promise.

    Args:
        tokenizer: a class, which is loaded first, or a tokenizer, trained or not.
        weights: directory to load the class from; without it, what the distribution ships.
        pictures: pictures of the tokenizer's own kind for the promised PSNR, of sizes among
            `spec.sizes`; without them, drawn shapes.
        only: names of checks to run.
        skip: names of checks to leave out, such as "round trip" for an untrained tokenizer.
        on_result: called with each result as soon as it is known.
    """
    for name in (*only, *skip):
        if name not in CHECKS:
            raise SettingsError(f"no check is named {name!r}; there are {', '.join(CHECKS)}")
    if isinstance(tokenizer, type):
        tokenizer = tokenizer.load(weights)
    elif weights is not None:
        raise SettingsError("weights are for a class; this tokenizer is loaded already")
    for picture in pictures:
        if picture.shape[:2] not in tokenizer.spec.sizes:
            raise SettingsError(
                f"a picture of {picture.shape[:2]} pixels was given, "
                f"but the tokenizer takes {list(tokenizer.spec.sizes[:8])}; resize it"
            )
    kind = type(tokenizer)
    with tempfile.TemporaryDirectory(prefix="mmgen_check_") as directory:
        subject = Subject(tokenizer, pictures, Path(directory))
        results = []
        for item in _CHECKS:
            if item.name in only and item.name not in skip:
                results.append(_run(item, subject))
                if on_result is not None:
                    on_result(results[-1])
    return Report(
        tokenizer=f"{kind.__module__}.{kind.__qualname__}",
        results=tuple(results),
        speeds=subject.speeds,
    )


def _run(item: Check, subject: Subject) -> CheckResult:
    start = time.perf_counter()
    outcome: Outcome = "passed"
    try:
        found = item.run(subject)
    except NotApplicable as reason:
        outcome, found = "skipped", str(reason)
    except Fault as fault:
        outcome, found = "failed", str(fault)
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises is the finding
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome = "failed"
        found = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return CheckResult(
        name=item.name,
        outcome=outcome,
        tried=item.tried,
        found=found,
        remedy=item.remedy if outcome == "failed" else "",
        seconds=time.perf_counter() - start,
    )
