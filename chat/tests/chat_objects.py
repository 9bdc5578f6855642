"""Small real objects for the tests of the chat."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mmgen.visual_tokenizer import Codes, Grid
from mmgen_chat.conversation import Conversation, Drawing, Picture, Turn, Words


def png(width: int = 6, height: int = 4, colour: str = "red") -> bytes:
    """Return a PNG file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def drawn(num_done: int = 16, prompt: str = "a red apple") -> Picture:
    """Return a drawn picture of 4x4 codes, of which some are there."""
    codes = Codes(np.arange(num_done, dtype=np.int64)[:, None], Grid(4, 4))
    drawing = Drawing(
        prompt=prompt,
        model="mini",
        seed=7,
        guidance_scale=3.0,
        temperature=0.8,
        num_done=num_done,
        num_codes=16,
        seconds=1.5,
    )
    return Picture(
        png=png(),
        size=(4, 6),
        codes=codes,
        tokenizer="fsq",
        fingerprint="f" * 64,
        drawing=drawing,
        alt="an apple",
    )


def exchange(conversation: Conversation, question: str, *answer: Words | Picture) -> Conversation:
    """Return a conversation with a question and its answer added."""
    asked = Turn(role="user", segments=(Words(question),), parent_id=conversation.leaf_id)
    conversation = conversation.with_turn(asked)
    return conversation.with_turn(Turn(role="assistant", segments=answer, parent_id=asked.id))
