"""Pictures as clients get them: files in base64, with what was applied to draw them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from PIL.PngImagePlugin import PngInfo

from mmgen.generate.events import ImageFinished
from mmgen.pictures import to_picture
from mmgen.serve.fields import ImageFormat
from mmgen.visual_tokenizer import Picture

__all__ = ["PictureFormat", "applied", "data_uri", "size_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFormat:
    """The kind of file that pictures are sent as."""

    name: ImageFormat = "png"
    """By which the request calls it."""
    compression: int | None = None
    """0..100, of JPEG and WebP; None for Pillow's usual."""

    @property
    def media_type(self) -> str:
        """As in a data URI."""
        return f"image/{self.name}"

    def encode(self, picture: Picture, metadata: Mapping[str, str] | None = None) -> str:
        """Return a picture as a file in base64.

        Args:
            metadata: text entries, of which only PNG files have any.
        """
        buffer = io.BytesIO()
        options: dict[str, Any] = {}
        if self.name == "png":
            info = PngInfo()
            for key, value in (metadata or {}).items():
                info.add_itxt(key, value)
            options["pnginfo"] = info
        elif self.compression is not None:
            # What OpenAI calls compression is what Pillow calls quality.
            options["quality"] = self.compression
        to_picture(picture).save(buffer, format=self.name, **options)
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def data_uri(encoded: str, format_: PictureFormat) -> str:
    """Return a file in base64 as an address that holds it."""
    return f"data:{format_.media_type};base64,{encoded}"


def size_text(picture: Picture) -> str:
    """Return the size of a picture, width first."""
    height, width = picture.shape[:2]
    return f"{width}x{height}"


def applied(image: ImageFinished) -> dict[str, Any]:
    """Return what was applied to draw a picture."""
    return {
        "seed": image.seed,
        "guidance_scale": image.guidance_scale,
        "image_guidance_scale": image.image_guidance_scale,
        "negative_prompt": image.negative_prompt,
        "sampling": asdict(image.sampling),
        "size": size_text(image.picture),
        "tokenizer": image.tokenizer,
        "tokens": image.num_ids,
        "restarts": image.num_restarts,
        "seconds": round(image.seconds, 4),
    }
