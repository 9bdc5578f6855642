"""Whether letters survive: drawn at known places, and read again by comparing with what was drawn.

A benchmark of text in pictures needs a reader of text, whose weights are not at hand. Here what
each cell shows is known, and the reader only has to say which of 36 signs it resembles most, so
that originals are always read right and every mistake is the tokenizer's.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mmgen.evaluate.progress import Progress
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Picture

__all__ = ["SIGN_SIZES", "SignScore", "read_signs", "sign_picture", "sign_scores"]

SIGNS = string.ascii_uppercase + string.digits
SIGN_SIZES = (8, 12, 16, 24)
"""Heights of a cell in pixels; a sign fills most of it."""

NUM_PICTURES = 12
"""Pictures of each size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignScore:
    """How many signs of one size were read right."""

    size: int
    """Height of a cell in pixels."""
    num_signs: int
    """Signs drawn."""
    share: float
    """Share that is read right after encoding and decoding; chance is 1 in 36."""


def sign_scores(tokenizer: AbstractVisualTokenizer, *, progress: Progress) -> tuple[SignScore, ...]:
    """Return how well signs of each size survive in pictures of the default size."""
    picture_size = tokenizer.spec.sizes[0]
    fitting = [size for size in SIGN_SIZES if size <= min(picture_size)]
    scores = []
    for size in progress(fitting, "reading letters"):
        drawn = [sign_picture(picture_size, size, seed=seed) for seed in range(NUM_PICTURES)]
        codes = tokenizer.encode([picture for picture, _ in drawn])
        decoded = tokenizer.decode(codes, seed=0 if tokenizer.spec.stochastic else None)
        read = [read_signs(picture, size) for picture in decoded]
        truth = "".join(signs for _, signs in drawn)
        right = sum(a == b for a, b in zip("".join(read), truth, strict=True))
        scores.append(SignScore(size=size, num_signs=len(truth), share=right / len(truth)))
    return tuple(scores)


def sign_picture(size: tuple[int, int], sign_size: int, *, seed: int) -> tuple[Picture, str]:
    """Return a picture full of signs, dark on light or light on dark, and the signs in rows."""
    random = np.random.default_rng([seed, sign_size])
    rows, columns = size[0] // sign_size, size[1] // sign_size
    dark, light = random.uniform(0.0, 0.25, 3), random.uniform(0.75, 1.0, 3)
    ground, ink = (light, dark) if seed % 2 == 0 else (dark, light)
    signs = "".join(random.choice(list(SIGNS), rows * columns))
    cover = np.zeros(size)
    templates = _templates(sign_size)
    for index, sign in enumerate(signs):
        top, left = (number * sign_size for number in divmod(index, columns))
        cover[top : top + sign_size, left : left + sign_size] = templates[SIGNS.index(sign)]
    cover = cover[..., np.newaxis]
    picture: Picture = (ground * (1 - cover) + ink * cover).astype(np.float32)
    return picture, signs


def read_signs(picture: Picture, sign_size: int) -> str:
    """Return the sign that each cell resembles most, in rows."""
    rows, columns = picture.shape[0] // sign_size, picture.shape[1] // sign_size
    light = picture.mean(axis=2)[: rows * sign_size, : columns * sign_size]
    cells = light.reshape(rows, sign_size, columns, sign_size).transpose(0, 2, 1, 3)
    known = _normalised(_templates(sign_size).reshape(len(SIGNS), -1))
    seen = _normalised(cells.reshape(rows * columns, -1))
    # Ink may be darker or lighter than the ground.
    best = np.abs(seen @ known.T).argmax(axis=1)
    return "".join(SIGNS[index] for index in best)


def _templates(sign_size: int) -> npt.NDArray[np.float64]:
    """Return how much of each pixel each sign covers, `[36, sign_size, sign_size]`."""
    font = ImageFont.load_default(sign_size)
    return np.stack([_drawn(sign, sign_size, font) for sign in SIGNS])


def _drawn(
    sign: str, size: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> npt.NDArray[np.float64]:
    image = Image.new("L", (size, size), 0)
    ImageDraw.Draw(image).text((size / 2, size / 2), sign, fill=255, font=font, anchor="mm")
    return np.asarray(image, dtype=np.float64) / 255


def _normalised(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return rows without their mean and of length one; a plain row becomes zeros."""
    centred = np.asarray(rows, dtype=np.float64)
    centred = centred - centred.mean(axis=1, keepdims=True)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(centred, axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = centred / np.maximum(lengths, 1e-9)
    return result
