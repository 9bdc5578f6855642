"""How far decoded pictures are from originals in what a network sees in them.

The distance that papers report is taken in the features of an Inception network, whose weights are
not part of mmgen. This one is taken in those of our own small classifier: a stand-in, named as
such, that orders tokenizers and compares with no published figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmgen.evaluate.classifier import Classifier
from mmgen.pictures import to_picture
from mmgen.visual_tokenizer import Picture

__all__ = ["feature_distance", "frechet_distance"]


def feature_distance(
    judge: Classifier, originals: Sequence[Picture], decoded: Sequence[Picture]
) -> float:
    """Return the Fréchet distance of two sets of pictures in the classifier's features."""
    first, second = (
        judge.features([to_picture(picture) for picture in pictures])
        for pictures in (originals, decoded)
    )
    return frechet_distance(first, second)


def frechet_distance(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Return the squared distance of two normal distributions fitted to `[pictures, features]`."""
    means = first.mean(axis=0) - second.mean(axis=0)
    one, other = (np.cov(features, rowvar=False) for features in (first, second))
    root = _square_root(one)
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0, None)).sum()
    return float(max(0.0, means @ means + np.trace(one) + np.trace(other) - 2 * overlap))


def _square_root(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    root: npt.NDArray[np.float64] = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root
