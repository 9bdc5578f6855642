"""A tokenizer that breaks its word while it is used ends in an error that names its plugin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mmgen.errors import PluginError
from mmgen.guarded_tokenizer import GuardedTokenizer
from mmgen.testing import draw_picture
from mmgen.visual_tokenizer import Codes, Grid, Picture
from mmgen_palette import PaletteTokenizer

ORIGIN = "plugin 'odd' (odd:Odd) of mmgen-odd 1.2"
PICTURE = draw_picture((64, 64), seed=1)


class Odd(PaletteTokenizer):
    """A palette whose results are changed on their way out."""

    def __init__(
        self,
        *,
        codes: Callable[[list[Codes]], list[Codes]] = lambda codes: codes,
        pictures: Callable[[list[Picture]], list[Picture]] = lambda pictures: pictures,
        table: Callable[[Any], Any] = lambda table: table,
    ) -> None:
        super().__init__()
        self.on_codes, self.on_pictures, self.on_table = codes, pictures, table

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        honest = super().encode(images, length=length, quality=quality, captions=captions)
        return self.on_codes(honest)

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        return self.on_pictures(super().decode(codes))

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        table: npt.NDArray[np.float32] = self.on_table(super().code_vectors(codebook))
        return table


def raises(error: BaseException) -> Callable[[object], Any]:
    def act(_: object) -> None:
        raise error

    return act


def changed(array: npt.NDArray[np.int64]) -> Callable[[list[Codes]], list[Codes]]:
    return lambda codes: [Codes(array, item.layout) for item in codes]


def test_an_honest_tokenizer_is_only_passed_through() -> None:
    palette, guard = PaletteTokenizer(), GuardedTokenizer(PaletteTokenizer(), ORIGIN)
    codes = guard.encode([PICTURE])
    assert codes == palette.encode([PICTURE])
    assert np.array_equal(guard.decode(codes)[0], palette.decode(codes)[0])
    part = Codes(codes[0].array[:9], codes[0].layout)
    assert np.array_equal(guard.preview(part), palette.preview(part))
    assert np.array_equal(guard.code_vectors(0), palette.code_vectors(0))
    assert (guard.fingerprint, guard.spec) == (palette.fingerprint, palette.spec)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (raises(RuntimeError("no driver")), "cannot encode: RuntimeError: no driver"),
        (raises(SystemExit(1)), "cannot encode: SystemExit: 1"),
        (lambda codes: [], "gave 0 results for 1 pictures"),
        (changed(np.full((64, 1), 256)), "codes 256 to 256, beyond its codebooks"),
        (changed(np.full((64, 1), -1)), "codes -1 to -1, beyond"),
        (changed(np.zeros((64, 2), dtype=np.int64)), r"codes \[64, 2\], expected \[64, 1\]"),
        (changed(np.zeros((9, 1), dtype=np.int64)), r"codes \[9, 1\], expected"),
        (
            lambda codes: [Codes(codes[0].array[:16], Grid(4, 4))],
            r"of another size, for a picture \(64, 64\)",
        ),
        (lambda codes: [Codes(codes[0].array, Grid(1, 64))], "its spec does not list"),
    ],
)
def test_a_fault_of_encode_names_the_plugin(fault: Any, found: str) -> None:
    with pytest.raises(PluginError, match=found) as caught:
        GuardedTokenizer(Odd(codes=fault), ORIGIN).encode([PICTURE])
    assert str(caught.value).startswith(ORIGIN)
    assert "repair the plugin" in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (raises(MemoryError("too much")), "cannot (decode|preview): MemoryError: too much"),
        (lambda pictures: [p * np.float32(np.nan) for p in pictures], "values nan to nan"),
        (lambda pictures: [p + np.float32(1) for p in pictures], "expected 0 to 1"),
        (lambda pictures: [p[:8] for p in pictures], r"drew float32 \[8, 64, 3\], expected"),
        (lambda pictures: [p.astype(np.float64) for p in pictures], "drew float64"),
    ],
)
def test_a_fault_of_drawing_names_the_plugin(fault: Any, found: str) -> None:
    guard = GuardedTokenizer(Odd(pictures=fault), ORIGIN)
    codes = guard.encode([PICTURE])
    with pytest.raises(PluginError, match=found) as caught:
        guard.decode(codes)
    assert str(caught.value).startswith(ORIGIN)
    with pytest.raises(PluginError, match=found) as caught:
        guard.preview(codes[0])
    assert str(caught.value).startswith(ORIGIN)


@pytest.mark.parametrize("fault", [lambda table: table[:9], lambda table: table / np.float32(0)])
@pytest.mark.filterwarnings("ignore:(divide|invalid)")
def test_wrong_code_vectors_name_the_plugin(fault: Any) -> None:
    with pytest.raises(PluginError, match=r"gave code vectors .* expected finite numbers"):
        GuardedTokenizer(Odd(table=fault), ORIGIN).code_vectors(0)


def test_errors_that_speak_of_the_arguments_pass_through() -> None:
    guard = GuardedTokenizer(PaletteTokenizer(), ORIGIN)
    with pytest.raises(ValueError, match="neither a length"):
        guard.encode([PICTURE], length=3)
    with pytest.raises(ValueError, match="palette takes"):
        guard.encode([draw_picture((7, 7), seed=0)])


def test_a_guard_loads_and_trains_nothing() -> None:
    with pytest.raises(PluginError, match="a guard is put around"):
        GuardedTokenizer.load()
    with pytest.raises(PluginError, match="a guard is put around"):
        GuardedTokenizer.untrained({}, seed=0)
