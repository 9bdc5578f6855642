"""The contract's own promises: layouts, sizes, specs, codes, and what a plain plugin inherits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import PluginError
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    FixedPixels,
    Grid,
    GridPixels,
    Layout,
    Ordered,
    Picture,
    PixelRule,
    Scales,
    Segments,
    TrainingOutput,
    VisualTokenizerSpec,
)


def make_spec(**changes: Any) -> VisualTokenizerSpec:
    settings: Mapping[str, Any] = {
        "codebook_sizes": (4,),
        "layouts": (Grid(2, 2),),
        "pixels": GridPixels(8),
    }
    return VisualTokenizerSpec(**{**settings, **changes})


class Shades(AbstractVisualTokenizer):
    """Four shades, one for each position of a line; a prefix repeats its last shade."""

    def __init__(self, spec: VisualTokenizerSpec) -> None:
        self._spec = spec

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        return "0" * 64

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        layout = self._spec.default_layout
        return [
            Codes(np.rint(image[:1, :, :1].reshape(-1, 1) * 3).astype(np.int64), layout)
            for image in images
        ]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        pictures = []
        for item in codes:
            if not item.is_complete:
                raise ValueError("complete codes only")
            row = np.pad(item.array[:, 0], (0, 4 - len(item.array)), mode="edge") / 3
            pictures.append(row.astype(np.float32)[np.newaxis, :, np.newaxis].repeat(3, axis=2))
        return pictures


LINE = make_spec(layouts=(Grid(1, 4),), pixels=GridPixels(1))


@pytest.mark.parametrize(
    ("layout", "num_positions", "shape"),
    [
        (Grid(2, 3), 6, (1, 2, 3)),
        (Grid(2, 3, frames=4), 24, (4, 2, 3)),
        (Ordered(7), 7, (7,)),
        (Scales(((1, 1), (2, 3))), 7, (2, 3)),
        (Segments((Ordered(5), Grid(2, 2))), 9, (5, 1, 2, 2)),
        (Segments((Scales(((1, 1), (2, 2))), Ordered(1))), 6, (2, 2, 1)),
    ],
)
def test_positions_and_shape(layout: Layout, num_positions: int, shape: tuple[int, ...]) -> None:
    assert layout.num_positions == num_positions
    assert layout.shape == shape
    assert layout == dataclasses.replace(layout)
    assert hash(layout) == hash(dataclasses.replace(layout))


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 9))
def test_a_grid_has_the_product_of_its_shape(rows: int, columns: int, frames: int) -> None:
    grid = Grid(rows, columns, frames)
    assert grid.num_positions == np.prod(grid.shape)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grid(0, 4),
        lambda: Grid(4, -1),
        lambda: Grid(4, 4, frames=0),
        lambda: Ordered(0),
        lambda: Scales(()),
        lambda: Scales(((1, 1), (0, 2))),
        lambda: Segments(()),
    ],
)
def test_empty_layouts_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"need|at least"):
        make()


@pytest.mark.parametrize(
    ("rule", "layout", "size"),
    [
        (FixedPixels(20, 30), Ordered(3), (20, 30)),
        (GridPixels(8), Grid(2, 3), (16, 24)),
        (GridPixels(8), Scales(((1, 1), (3, 2))), (24, 16)),
        (GridPixels(4), Segments((Ordered(9), Grid(2, 5))), (8, 20)),
        (GridPixels(4), Segments((Grid(2, 5), Ordered(9))), (8, 20)),
        (GridPixels(4), Segments((Grid(1, 1), Scales(((1, 1), (2, 2))))), (8, 8)),
    ],
)
def test_size_of_a_layout(rule: PixelRule, layout: Layout, size: tuple[int, int]) -> None:
    assert rule.size_of(layout) == size


def test_spec_defaults_to_its_first_layout_and_lists_each_size_once() -> None:
    spec = make_spec(layouts=(Grid(2, 2), Grid(1, 3)))
    assert spec.default_layout == Grid(2, 2)
    assert spec.sizes == ((16, 16), (8, 24))
    lengths = make_spec(layouts=(Ordered(4), Ordered(2)), pixels=FixedPixels(8, 8))
    assert lengths.sizes == ((8, 8),)


def test_spec_is_a_value() -> None:
    assert make_spec() == make_spec()
    assert len({make_spec(), make_spec()}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_spec().min_psnr = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_sizes": ()}, "codebook_sizes"),
        ({"codebook_sizes": (4, 1)}, "codebook_sizes"),
        ({"layouts": ()}, "at least one layout"),
        ({"layouts": (Grid(1, 1), Ordered(1))}, "one class"),
        ({"layouts": (Grid(1, 2), Grid(1, 2))}, "same shape"),
        ({"layouts": (Scales(((1, 1), (2, 2))), Scales(((2, 2),)))}, "same shape"),
        (
            {"layouts": (Segments((Ordered(1),)), Segments((Ordered(1), Ordered(2))))},
            "equally many sides",
        ),
        ({"blank_codes": (0, 0)}, "2 codes for 1"),
        ({"blank_codes": (4,)}, "blank code 4"),
        ({"blank_codes": (-1,)}, "blank code -1"),
        ({"prefix_decodable": True}, "Ordered"),
        ({"chooses_length": True}, "chooses_length needs Ordered"),
    ],
)
def test_contradictory_specs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_spec(**changes)


def test_codes_are_complete_or_a_prefix() -> None:
    array = np.zeros((3, 2), dtype=np.int64)
    assert not Codes(array, Grid(2, 2)).is_complete
    assert Codes(array, Grid(1, 3)).is_complete
    with pytest.raises(ValueError, match="3 positions do not fit"):
        Codes(array, Grid(1, 2))


@pytest.mark.parametrize("array", [np.zeros((2, 1)), np.zeros(2, dtype=np.int64)])
def test_codes_are_integers_by_position_and_codebook(array: Any) -> None:
    with pytest.raises(ValueError, match=r"integer array \[positions, codebooks\]"):
        Codes(array, Grid(1, 2))


def test_codes_are_equal_by_value() -> None:
    one = Codes(np.array([[1], [2]]), Grid(1, 2))
    assert one == Codes(np.array([[1], [2]]), Grid(1, 2))
    assert hash(one) == hash(Codes(np.array([[1], [2]]), Grid(1, 2)))
    assert one != Codes(np.array([[1], [3]]), Grid(1, 2))
    assert one != Codes(np.array([[1], [2]]), Grid(2, 1))
    assert one != 5


def test_preview_fills_with_the_blank_code() -> None:
    tokenizer = Shades(dataclasses.replace(LINE, blank_codes=(3,)))
    picture = tokenizer.preview(Codes(np.array([[1]]), Grid(1, 4)))
    assert picture[0, :, 0] * 3 == pytest.approx([1, 3, 3, 3])


def test_preview_fills_with_zeros_without_a_blank_code() -> None:
    picture = Shades(LINE).preview(Codes(np.array([[1], [2]]), Grid(1, 4)))
    assert picture[0, :, 0] * 3 == pytest.approx([1, 2, 0, 0])


def test_preview_of_nothing_and_of_everything() -> None:
    tokenizer = Shades(LINE)
    nothing = tokenizer.preview(Codes(np.zeros((0, 1), dtype=np.int64), Grid(1, 4)))
    assert nothing.shape == (1, 4, 3) and not nothing.any()
    whole = Codes(np.array([[1], [2], [3], [0]]), Grid(1, 4))
    assert np.array_equal(tokenizer.preview(whole), tokenizer.decode([whole])[0])


def test_preview_decodes_a_prefix_where_it_can() -> None:
    spec = make_spec(layouts=(Ordered(4),), pixels=FixedPixels(1, 4), prefix_decodable=True)
    tokenizer = Shades(spec)
    picture = tokenizer.preview(Codes(np.array([[1], [2]]), Ordered(4)))
    assert picture[0, :, 0] * 3 == pytest.approx([1, 2, 2, 2])
    nothing = tokenizer.preview(Codes(np.zeros((0, 1), dtype=np.int64), Ordered(4)))
    assert not nothing.any()


def test_default_code_vectors_are_the_codes_in_order() -> None:
    table = Shades(make_spec(codebook_sizes=(2, 5))).code_vectors(1)
    assert table.dtype == np.float32
    assert table[:, 0] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_abstract_tokenizer_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        AbstractVisualTokenizer()  # type: ignore[abstract]


class Plain(Shades):
    def __init__(self) -> None:
        super().__init__(LINE)


def test_plain_plugin_is_loaded_without_a_path(tmp_path: Path) -> None:
    assert Plain.load().spec == LINE
    assert Plain.load(parts="decoder", device="cpu", dtype="float32").spec == LINE
    Plain().save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PluginError, match="load it without a path"):
        Plain.load(tmp_path)


def test_plain_plugin_has_nothing_to_train() -> None:
    assert not Plain.is_trainable
    with pytest.raises(PluginError, match="Plain has nothing to train"):
        Plain.untrained({}, seed=0)
    with pytest.raises(PluginError, match="Plain has nothing to train"):
        Plain().network()


def test_training_output_has_no_further_losses_unless_given() -> None:
    import torch

    output = TrainingOutput(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 1, dtype=torch.long))
    assert output.losses == {}
