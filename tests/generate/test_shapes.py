"""Pictures of chosen length, and pictures that go on where shorter ones end."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from mmgen.checkpoint import GenerationDefaults, save_checkpoint
from mmgen.errors import SettingsError
from mmgen.generate.events import ImageFinished, ImageProgress, ImageStarted, TurnFinished
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import Session, open_session
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import train_bpe
from mmgen.visual_tokenizer import Codes, Grid, Layout, Ordered
from mmgen.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A session whose model has an ordered tokenizer of three lengths, and the palette."""
    folder = tmp_path_factory.mktemp("ordered")
    metadata = folder / "mmgen_waves-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mmgen-waves\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[mmgen.visual_tokenizers]\n"
        "waves = mmgen.authoring.starting_points.ordered:StartTokenizer\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        return open_session(saved(folder / "model"), num_rows=8)


def saved(path: Path) -> Path:
    text_tokenizer = train_bpe(["draw a red fox"], num_ids=270)
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    )
    tokenizers = {name: load_visual_tokenizer_class(name).load() for name in ("waves", "palette")}
    layouts: dict[str, tuple[Layout, ...]] = {
        "waves": (Ordered(16), Ordered(8), Ordered(4)),
        "palette": (Grid(4, 4),),
    }
    for name, tokenizer in tokenizers.items():
        vocabulary = vocabulary.extend(
            name, codebook_sizes=tokenizer.spec.codebook_sizes, layouts=layouts[name]
        )
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            intermediate_size=64,
            context_length=64,
        )
    )
    init_weights(decoder, seed=0)
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        visual_tokenizers={name: (item, None) for name, item in tokenizers.items()},
        generation=GenerationDefaults(tokenizer="waves", guidance_scale=2.0),
        model_card="A model with random weights.",
        dtype="float32",
    )
    return path


def drawn(drawer: Session, **rest: object) -> tuple[ImageFinished, list[object]]:
    request = DrawRequest(prompt="a fox", seed=3, **rest)  # type: ignore[arg-type]
    events = list(drawer.run([request]))
    [finished] = [event for event in events if isinstance(event, ImageFinished)]
    return finished, list(events)


def test_a_picture_has_the_length_that_is_asked_for(drawer: Session) -> None:
    for length in (4, 8, 16):
        assert drawn(drawer, length=length)[0].codes.layout == Ordered(length)
    assert drawn(drawer)[0].codes.layout == Ordered(16)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_picture_goes_on_where_a_shorter_one_ends(drawer: Session, guidance: float) -> None:
    sketch, _ = drawn(drawer, length=4, guidance_scale=guidance)
    refined, events = drawn(drawer, length=16, begun=sketch.codes, guidance_scale=guidance)
    assert refined.codes.layout == Ordered(16)
    assert np.array_equal(refined.codes.array[:4], sketch.codes.array)
    assert refined.num_ids == 12
    [started] = [event for event in events if isinstance(event, ImageStarted)]
    assert started.num_codes == 16
    progress = [event for event in events if isinstance(event, ImageProgress)]
    assert [event.num_done for event in progress] == list(range(5, 17))
    assert np.array_equal(progress[0].codes.array[:4], sketch.codes.array)
    [turn] = [event for event in events if isinstance(event, TurnFinished)]
    assert turn.usage.image_ids == 12
    again, _ = drawn(drawer, length=16, begun=sketch.codes, guidance_scale=guidance)
    assert again.codes == refined.codes
    half = Codes(sketch.codes.array[:2], sketch.codes.layout)
    assert drawn(drawer, length=8, begun=half)[0].num_ids == 6


def test_what_cannot_be_drawn(drawer: Session) -> None:
    sketch, _ = drawn(drawer, length=8)
    small, _ = drawn(drawer, tokenizer="palette")

    def message(**rest: object) -> str:
        with pytest.raises(SettingsError) as caught:
            drawer.submit(DrawRequest(prompt="a fox", seed=3, **rest))  # type: ignore[arg-type]
        return str(caught.value)

    assert "have the length 5; there are 4, 8, 16" in message(length=5)
    assert "leave out the length 5" in message(length=5, tokenizer="palette")
    assert "has 8 positions, and 8 are wanted" in message(length=8, begun=sketch.codes)
    assert "cannot be continued" in message(tokenizer="palette", begun=small.codes)
