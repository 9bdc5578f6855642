"""The files of a new package beside the tokenizer: `string.Template` texts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["PYPROJECT", "README", "TESTS", "TEST_HEAD", "TRAINING"]

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The visual tokenizer $name for mmgen: $what"
readme = "README.md"
requires-python = ">=3.11"
dependencies = [$dependencies]

[project.entry-points."mmgen.visual_tokenizers"]
$name = "$module:$class_name"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
$module = ["py.typed", "weights/*"]
"""

README = """\
# $distribution

The visual tokenizer `$name` for mmgen: $what.

## Install and try

From this folder, in an environment that has mmgen:

```bash
pip install -e .
mmgen tokenizer check $name
mmgen tokenizer encode $name photo.jpg -o codes.json
mmgen tokenizer decode $name codes.json -o again.png
```

`mmgen tokenizer check .` checks this folder before it is installed, and `python -m pytest` runs the
same checks and the tests in `tests/`.

## Use

A tiny model on drawn shapes, in seconds, to see that a decoder learns these codes:

```bash
mmgen train debug tokenizer=$name output=runs/$name
mmgen generate --model runs/$name/decoder/checkpoint "a red circle"
```

In a recipe of your own it is `TokenizerSource(name="$name")`. To give its codes to a model that is
trained already:

```bash
mmgen vocabulary extend MODEL --tokenizer $name -o extended
```
$training
## Compare

```bash
mmgen evaluate tokenizer $name palette --data pictures.parquet -o results
```

prints a table of fidelity, tokens, bits and speed, and draws both beside JPEG, WebP and AVIF.

## Measured

Put here what you measured, on which pictures, and what it was trained on under which licences.
"""

TRAINING = """
## Train

A file `train_$module.py` with a recipe:

```python
from pathlib import Path

from mmgen.train.sources import FolderConfig, WeightedSource
from mmgen.train.tokenizer_config import TokenizerTrainConfig


def recipe() -> TokenizerTrainConfig:
    \"""Train $name on a folder of pictures.\"""
    return TokenizerTrainConfig(
        tokenizer="$name",
        sources=(WeightedSource(source=FolderConfig(path=Path("pictures"))),),
        output=Path("runs/$name-tokenizer"),
        num_steps=2000,
    )
```

```bash
mmgen train train_$module:recipe
mmgen tokenizer check $name --weights runs/$name-tokenizer/tokenizer
```

Copy the two files of `runs/$name-tokenizer/tokenizer` to `src/$module/weights/` to ship them.
Until then the tokenizer starts from the cosine transform.
"""

TEST_HEAD = '''\
"""What `$name` promises, and what makes it the kind of tokenizer it is.

The first test holds for any tokenizer. The others speak of this one: change them with it.
"""

from __future__ import annotations

'''

_GRID = """\
import numpy as np
from mmgen.testing import check

from $module import $class_name


def test_the_contract_is_kept() -> None:
    report = check($class_name)
    assert report.is_passed, report.to_text()


def test_a_plain_picture_stays_plain() -> None:
    white = np.ones((64, 64, 3), dtype=np.float32)
    tokenizer = $class_name()
    (codes,) = tokenizer.encode([white])
    assert len(np.unique(codes.array, axis=0)) == 1
    assert np.abs(tokenizer.decode([codes])[0] - white).max() < 0.05
"""

_RESIDUAL = """\
import numpy as np
from mmgen.testing import check, draw_picture, psnr
from mmgen.visual_tokenizer import Codes

from $module import $class_name


def test_the_contract_is_kept() -> None:
    report = check($class_name)
    assert report.is_passed, report.to_text()


def test_every_codebook_adds_to_the_picture() -> None:
    tokenizer = $class_name()
    pictures = [draw_picture((64, 64), seed=seed) for seed in range(8)]
    nothing = np.array(tokenizer.spec.blank_codes)
    fidelity = []
    for kept in range(1, len(nothing) + 1):
        values = []
        for picture, codes in zip(pictures, tokenizer.encode(pictures), strict=True):
            array = codes.array.copy()
            array[:, kept:] = nothing[kept:]
            (decoded,) = tokenizer.decode([Codes(array, codes.layout)])
            values.append(psnr(picture, decoded))
        fidelity.append(float(np.mean(values)))
    assert fidelity == sorted(fidelity)
    assert fidelity[-1] > fidelity[0]
"""

_SCALES = """\
import numpy as np
from mmgen.testing import check, draw_picture, psnr
from mmgen.visual_tokenizer import Codes, Scales

from $module import $class_name


def test_the_contract_is_kept() -> None:
    report = check($class_name)
    assert report.is_passed, report.to_text()


def test_every_scale_adds_to_the_preview() -> None:
    tokenizer = $class_name()
    layout = tokenizer.spec.default_layout
    assert isinstance(layout, Scales)
    ends = np.cumsum([rows * columns for rows, columns in layout.sizes])
    pictures = [draw_picture((64, 64), seed=seed) for seed in range(8)]
    encoded = tokenizer.encode(pictures)
    fidelity = [
        float(
            np.mean(
                [
                    psnr(picture, tokenizer.preview(Codes(codes.array[:end], layout)))
                    for picture, codes in zip(pictures, encoded, strict=True)
                ]
            )
        )
        for end in ends
    ]
    assert fidelity == sorted(fidelity)
    assert fidelity[-1] > fidelity[0]
"""

_ORDERED = """\
import numpy as np
from mmgen.testing import check, draw_picture, psnr

from $module import $class_name


def test_the_contract_is_kept() -> None:
    report = check($class_name)
    assert report.is_passed, report.to_text()


def test_more_codes_show_more() -> None:
    tokenizer = $class_name()
    pictures = [draw_picture((64, 64), seed=seed) for seed in range(8)]
    fidelity = []
    for length in sorted(layout.num_positions for layout in tokenizer.spec.layouts):
        decoded = tokenizer.decode(tokenizer.encode(pictures, length=length))
        pairs = zip(pictures, decoded, strict=True)
        fidelity.append(float(np.mean([psnr(*pair) for pair in pairs])))
    assert fidelity == sorted(fidelity)
    assert fidelity[-1] > fidelity[0]


def test_more_quality_takes_more_codes() -> None:
    tokenizer = $class_name()
    picture = draw_picture((64, 64), seed=1)
    lengths = [
        len(tokenizer.encode([picture], quality=quality)[0].array) for quality in (0.0, 0.5, 1.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
"""

_LEARNED = """\
import numpy as np
import torch
from mmgen.testing import check, draw_picture

from $module import $class_name


def test_the_contract_is_kept() -> None:
    report = check($class_name)
    assert report.is_passed, report.to_text()


def test_training_makes_it_better() -> None:
    network = $class_name.untrained({}, seed=0).network().train()
    pictures = np.stack([draw_picture((64, 64), seed=seed) for seed in range(16)])
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    errors = []
    for _ in range(20):
        output = network(batch)
        error = (output.reconstruction - batch).square().mean()
        loss = error + torch.stack(list(output.losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0]
"""

TESTS: Mapping[str, str] = MappingProxyType(
    {
        "grid": _GRID,
        "residual": _RESIDUAL,
        "scales": _SCALES,
        "ordered": _ORDERED,
        "learned": _LEARNED,
    }
)
"""The tests of each kind."""
