"""What the requests of all routes share: sampling, seeds, sizes, numbers within the limits."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from mmgen.checkpoint import SamplingDefaults
from mmgen.document import Document
from mmgen.errors import SettingsError
from mmgen.generate.engine import MAX_SEED, SamplingParams
from mmgen.generate.provenance import parse_size
from mmgen.generate.requests import check_scale_of_pictures
from mmgen.serve.refusals import Refusal

__all__ = [
    "at_most",
    "check_image_guidance",
    "check_model",
    "first_seed",
    "merged_sampling",
    "refuse_negative_prompt",
    "turn_size",
    "wanted_size",
]

MAX_DRAWN_SEED = 2**32
"""Seeds that are chosen for the client stay below, so that they are easy to copy."""


def check_model(asked: str | None, served: str) -> None:
    """Refuse a model that is not the one served."""
    if asked is not None and asked != served:
        raise Refusal(
            f"there is no model {asked!r} here; this server has {served!r}",
            status=404,
            param="model",
            code="model_not_found",
        )


def first_seed(seed: int | None, n: int) -> int:
    """Return the seed of the first of `n` answers, a random one if none is given."""
    if seed is None:
        return secrets.randbelow(MAX_DRAWN_SEED)
    if seed > MAX_SEED - n + 1:
        raise Refusal(f"seed {seed} is too large for {n} answers in a row", param="seed")
    return seed


def merged_sampling(
    defaults: SamplingDefaults,
    *,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
) -> SamplingParams:
    """Return how ids are chosen: what was asked for, else what the checkpoint says."""
    try:
        return SamplingParams(
            temperature=defaults.temperature if temperature is None else temperature,
            top_k=defaults.top_k if top_k is None else top_k,
            top_p=defaults.top_p if top_p is None else top_p,
        )
    except SettingsError as error:
        raise Refusal(str(error)) from error


def wanted_size(text: str | None) -> tuple[int, int] | None:
    """Return the size `(height, width)` that a request names; None for the model's own."""
    if text is None or text == "auto":
        return None
    try:
        return parse_size(text)
    except SettingsError as error:
        raise Refusal(str(error), param="size") from error


def turn_size(
    text: str | None, sizes: Collection[tuple[int, int]], *, must_draw: bool, how: str
) -> tuple[int, int] | None:
    """Return the size that a turn's picture must have; None where the model has its way.

    Args:
        sizes: all that the model draws.
        must_draw: whether the turn begins with a picture. Only then can a size be chosen for it.
        how: the field by which a client gets such a turn.
    """
    size = wanted_size(text)
    if size is None or must_draw:
        return size
    if list(sizes) == [size]:
        return None
    raise Refusal(
        f"size can be chosen only for a picture that must be drawn, which {how} can ask for",
        param="size",
    )


def at_most(value: int | None, most: int, default: int, param: str) -> int:
    """Return a number that a request asks for, if the server allows it."""
    if value is None:
        return min(default, most)
    if value > most:
        raise Refusal(f"{param} is {value}; this server allows at most {most}", param=param)
    return value


def check_image_guidance(scale: float | None, document: Document) -> None:
    """Refuse guidance by pictures that cannot be, or where no user shows any."""
    if scale is None:
        return
    try:
        check_scale_of_pictures(scale, document)
    except SettingsError as error:
        raise Refusal(str(error), param="image_guidance_scale") from error


def refuse_negative_prompt(text: str | None) -> None:
    """Refuse a negative prompt where it has no meaning."""
    if text:
        raise Refusal(
            "negative_prompt has no place in a dialogue of many words; leave it out here, or use "
            "/v1/images/generations or /v1/images/edits",
            param="negative_prompt",
            code="unsupported_parameter",
        )
