"""Plugins broken on purpose, each a file as a stranger would write it: the command names the fault.

The modules beside this one try every check on its own; here the whole kit meets whole plugins.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmgen.cli.tokenizer import tokenizer
from mmgen.errors import PluginError

ENCODE = "    def encode(self, images, *, length=None, quality=None, captions=None):\n"
DECODE = "    def decode(self, codes, *, seed=None, steps=None, captions=None):\n"
HONEST = "super().encode(images, length=length, quality=quality, captions=captions)"
PALETTE = "from mmgen_palette import PaletteTokenizer as Base"
ORDERED = "from mmgen.authoring.starting_points.ordered import StartTokenizer as Base"
LEARNED = "from mmgen.authoring.starting_points.learned import StartTokenizer as Base"

BROKEN = {
    "wrong range": (
        PALETTE,
        f"{ENCODE}        return [Codes(c.array + 200, c.layout) for c in {HONEST}]\n",
        "codes",
    ),
    "wrong shape": (
        PALETTE,
        f"{DECODE}        return [p[::2, ::2] for p in super().decode(codes)]\n",
        "pixels",
    ),
    "depends on the batch": (
        PALETTE,
        f"{ENCODE}        n = len(images)\n"
        f"        return [Codes((c.array + n) % 256, c.layout) for c in {HONEST}]\n",
        "batch independence",
    ),
    "not deterministic": (
        PALETTE,
        f"{DECODE}        r = np.random.default_rng()\n"
        "        return [np.clip(p + r.normal(0, 0.1, p.shape), 0, 1).astype(np.float32)\n"
        "                for p in super().decode(codes)]\n",
        "determinism",
    ),
    "prefix not honoured": (
        ORDERED,
        f"{DECODE}        full = [c for c in codes if len(c.array) == 64]\n"
        "        blank = Codes(np.full((1, 1), 416), Ordered(1))\n"
        "        super().decode(codes)\n"
        "        return super().decode([c if c in full else blank for c in codes])\n",
        "prefixes",
    ),
    "fingerprint ignores weights": (
        LEARNED,
        "    fingerprint = 'a' * 64\n",
        "weights",
    ),
    "beyond 0..1": (
        PALETTE,
        f"{DECODE}        return [p * np.float32(2) - 1 for p in super().decode(codes)]\n",
        "pixels",
    ),
    "not a number": (
        PALETTE,
        f"{DECODE}        return [p * np.float32('nan') for p in super().decode(codes)]\n",
        "pixels",
    ),
    "claims a fidelity it does not reach": (
        PALETTE,
        "    @property\n    def spec(self):\n"
        "        return dataclasses.replace(super().spec, min_psnr=45.0)\n",
        "round trip",
    ),
    "changes its input": (
        PALETTE,
        f"{ENCODE}        for image in images: np.clip(image, 0, 0.9, out=image)\n"
        f"        return {HONEST}\n",
        "inputs unchanged",
    ),
    "lies about its codebook": (
        PALETTE,
        "    @property\n    def spec(self):\n"
        "        return dataclasses.replace(super().spec, codebook_sizes=(300,))\n",
        "code vectors",
    ),
    "slow in a batch": (
        PALETTE,
        f"{DECODE}        for _ in codes: drawn = super().decode(codes)\n"
        "        return drawn if codes else []\n",
        "speed",
    ),
    "imports what plugins may not": (
        f"import mmgen.vocabulary\n{PALETTE}",
        "    pass\n",
        "imports",
    ),
}
"""What is wrong: what the file begins with, the class's body, and the check that must fail."""

OWN_TIME = ("speed", "imports", "fresh process")
"""Checks that start a process or take time; those that must fail run, others would only wait."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))  # put back what checking a file adds
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("broken_")]:
        del sys.modules[name]


@pytest.mark.parametrize("fault", BROKEN)
def test_the_fault_is_caught_and_named(fault: str, place: Path) -> None:
    head, body, expected = BROKEN[fault]
    file = place / f"broken_{len(list(place.iterdir()))}_{fault.split()[0]}.py"
    file.write_text(
        "import dataclasses\nimport numpy as np\n"
        f"from mmgen.visual_tokenizer import Codes, Ordered\n{head}\n\n\n"
        f"class Broken(Base):\n{body}"
    )
    skipped = [word for name in OWN_TIME if name != expected for word in ("--skip", name)]
    result = CliRunner().invoke(tokenizer, ["check", str(file), "--json", *skipped])
    assert isinstance(result.exception, PluginError), result.output
    assert expected in str(result.exception)
    report = json.loads(result.stdout)
    assert report["is_passed"] is False
    (found,) = [item for item in report["checks"] if item["name"] == expected]
    assert found["outcome"] == "failed"
    assert found["tried"] and found["found"] and found["remedy"]


def test_an_import_that_needs_a_device_ends_in_one_line(place: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has what the plugin asks for")
    (place / "broken_device.py").write_text(
        f"import torch\n{PALETTE}\ntable = torch.zeros(1).cuda()\nclass Broken(Base): pass\n"
    )
    result = CliRunner().invoke(tokenizer, ["check", str(place / "broken_device.py")])
    assert isinstance(result.exception, PluginError)
    assert "broken_device.py cannot be imported" in str(result.exception)
