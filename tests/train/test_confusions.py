"""A model's confusions: its own draws in the place of true codes, counted into a file."""

from __future__ import annotations

from pathlib import Path

import torch

from mmgen.checkpoint import open_checkpoint
from mmgen.data.shapes import ShapesSource
from mmgen.document import Document, Image, Text, Turn
from mmgen.train.confusions import CONFUSIONS_FILE, ConfusionStage, drawn_in_place
from mmgen.train.progress import SilentProgress
from mmgen.train.sources import ShapesConfig
from mmgen.wrapping.confusions import read_confusions


def documents(count: int) -> list[Document]:
    source = ShapesSource(0, count, picture_size=64)
    found = []
    for index in range(count):
        row = source.row(index)
        assert row.picture is not None
        asked = Turn("user", (Text(f"draw {row.captions[0]}"),))
        answered = Turn("assistant", (Image(picture=row.picture, tokenizer="palette"),))
        found.append(Document(turns=(asked, answered)))
    return found


def test_what_is_drawn_depends_on_the_picture_and_the_seed(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    codec, decoder = checkpoint.codec(), checkpoint.load_decoder()
    batch = documents(3)
    true, drawn = drawn_in_place(checkpoint, codec, decoder, batch, seed=1)
    assert true.shape == drawn.shape == (3, 64, 1)
    palette = checkpoint.load_visual_tokenizer("palette")
    (image,) = [item for item in batch[0].turns[1].segments if isinstance(item, Image)]
    assert image.picture is not None
    encoded = codec.encode_images([image.picture], "palette")[0]
    assert true[0].equal(torch.from_numpy(encoded.array))
    assert 0 <= drawn.min() and drawn.max() < palette.spec.codebook_sizes[0]
    again = drawn_in_place(checkpoint, codec, decoder, batch, seed=1)[1]
    other = drawn_in_place(checkpoint, codec, decoder, batch, seed=2)[1]
    assert again.equal(drawn) and not other.equal(drawn)


def test_scores_are_read_at_the_right_places(tiny_checkpoint: Path) -> None:
    """At temperature 0 and without guidance, the first code drawn is the engine's first."""
    from dataclasses import replace

    from mmgen.checkpoint import SamplingDefaults
    from mmgen.generate.engine import SamplingParams
    from mmgen.generate.events import ImageFinished
    from mmgen.generate.requests import DrawRequest
    from mmgen.generate.session import open_session

    checkpoint = open_checkpoint(tiny_checkpoint)
    greedy = replace(
        checkpoint.generation, image=SamplingDefaults(temperature=0.0), guidance_scale=1.0
    )
    checkpoint = replace(checkpoint, generation=greedy)
    request = DrawRequest(
        prompt="a circle", seed=0, guidance_scale=1.0, sampling=SamplingParams(temperature=0.0)
    )
    (event,) = [
        item
        for item in open_session(tiny_checkpoint).draw_many([request])
        if isinstance(item, ImageFinished)
    ]
    asked = Turn("user", (Text("draw a circle"),))
    answered = Turn("assistant", (Image(codes=event.codes, tokenizer="palette"),))
    codec, decoder = checkpoint.codec(), checkpoint.load_decoder()
    true, drawn = drawn_in_place(
        checkpoint, codec, decoder, [Document(turns=(asked, answered))], seed=5
    )
    # Given its own greedy codes, the likeliest code at every place is the one that stands there.
    assert drawn.equal(true)


def test_a_stage_writes_a_table_of_the_models_tokenizer(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    stage = ConfusionStage(
        model=str(tiny_checkpoint),
        source=ShapesConfig(count=30, picture_size=64),
        num_pictures=20,
        output=tmp_path / "counted",
    )
    assert not stage.is_finished
    assert stage.run(SilentProgress())
    assert stage.is_finished
    fingerprint = open_checkpoint(tiny_checkpoint).visual_tokenizers["palette"].fingerprint
    table = read_confusions(tmp_path / "counted" / CONFUSIONS_FILE, fingerprint)
    assert table.codes[0].shape == (256, 16)
    assert 0.9 < table.error_rate <= 1  # An untrained model knows nothing.
