"""The speed card has four lines, and work that grows with the square of the batch is caught."""

from __future__ import annotations

from collections.abc import Sequence

from mmgen.testing import check
from mmgen.visual_tokenizer import Codes, Picture
from mmgen_palette import PaletteTokenizer


class AllForEach(PaletteTokenizer):
    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        decode = super().decode
        return [decode(codes)[index] for index in range(len(codes))]


def test_speed_card() -> None:
    report = check(PaletteTokenizer, only=["speed"])
    assert report.is_passed, report.to_text()
    rows = [(speed.operation, speed.batch_size) for speed in report.speeds]
    assert rows == [("encode", 1), ("encode", 64), ("decode", 1), ("decode", 64)]
    assert min(speed.images_per_second for speed in report.speeds) > 0


def test_quadratic_batch_is_caught() -> None:
    (result,) = check(AllForEach, only=["speed"]).failures
    assert "among 64 than for one alone" in result.found
