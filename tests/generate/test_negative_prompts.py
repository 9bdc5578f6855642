from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmgen.condition import null_condition
from mmgen.errors import SettingsError
from mmgen.generate.events import ImageFinished
from mmgen.generate.provenance import Provenance
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import Session
from mmgen.pictures import save_png, to_picture

REQUEST = DrawRequest(prompt="a red fox", seed=3, guidance_scale=3.0)


def drawn(session: Session, request: DrawRequest) -> ImageFinished:
    (image,) = [item for item in session.run([request]) if isinstance(item, ImageFinished)]
    return image


@pytest.mark.parametrize("negative", ["fox", "a fox what is this a fox", "a red box"])
def test_guidance_leads_away_from_the_negative_prompt(session: Session, negative: str) -> None:
    plain = session.begin(0, REQUEST).span
    span = session.begin(0, replace(REQUEST, negative_prompt=negative)).span
    other = session.begin(0, replace(REQUEST, prompt=negative)).span
    assert span == replace(plain, unguided_ids=other.prompt_ids)
    assert plain.unguided_ids == tuple(null_condition(plain.prompt_ids, session.codec.vocabulary))


def test_the_negative_prompt_changes_the_picture(session: Session) -> None:
    plain = drawn(session, REQUEST)
    away = drawn(session, replace(REQUEST, negative_prompt="what is this? a fox"))
    assert plain.negative_prompt is None and away.negative_prompt == "what is this? a fox"
    assert (plain.codes.array != away.codes.array).any()


def test_guidance_away_from_the_prompt_itself_is_no_guidance(session: Session) -> None:
    itself = drawn(session, replace(REQUEST, negative_prompt=REQUEST.prompt))
    unguided = drawn(session, replace(REQUEST, guidance_scale=1.0))
    assert (itself.codes.array == unguided.codes.array).all()


def test_a_picture_is_drawn_again_from_its_file(session: Session, tmp_path: Path) -> None:
    image = drawn(session, replace(REQUEST, negative_prompt="a fox"))
    story = Provenance.of(image, REQUEST.prompt, "tiny", session.checkpoint)
    save_png(to_picture(image.picture), tmp_path / "a.png", story.metadata())
    request = Provenance.read(tmp_path / "a.png").request()
    assert request.negative_prompt == "a fox"
    assert np.array_equal(drawn(session, request).codes.array, image.codes.array)


def test_a_negative_prompt_without_effect_is_refused(session: Session) -> None:
    with pytest.raises(SettingsError, match="takes effect through guidance, which is off at 1"):
        session.begin(0, replace(REQUEST, negative_prompt="a fox", guidance_scale=1.0))
    with pytest.raises(SettingsError, match="the prompt is empty"):
        session.begin(0, replace(REQUEST, negative_prompt=" "))
