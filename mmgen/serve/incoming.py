"""Pictures that come with requests: data URIs, uploads and, where allowed, addresses.

Whatever a client sends becomes an RGB picture here or a refusal that names the field. Decoding
happens in a thread, as it may take a while.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from PIL import Image as Pillow

from mmgen.errors import PictureError
from mmgen.pictures import open_picture
from mmgen.serve.fetching import Fetcher
from mmgen.serve.refusals import Refusal
from mmgen.serve.settings import Limits

__all__ = ["PictureReader", "data_uri_bytes"]

_DATA_URI = re.compile(r"data:(?P<type>[^,;]*)(?P<options>(?:;[^,;]*)*),(?P<data>.*)", re.DOTALL)


class PictureReader:
    """Reads the pictures of requests."""

    def __init__(self, limits: Limits, fetcher: Fetcher) -> None:
        self._limits = limits
        self._fetcher = fetcher

    async def from_urls(self, urls: Mapping[str, str]) -> dict[str, Pillow.Image]:
        """Return the pictures of the addresses in some fields, by the name of the field."""
        self._check_number(len(urls))
        data = [await self._bytes_of(url, param) for param, url in urls.items()]
        return dict(zip(urls, await self._decoded(data, list(urls)), strict=True))

    async def from_uploads(self, files: Sequence[bytes], param: str) -> list[Pillow.Image]:
        """Return the pictures of uploaded files."""
        self._check_number(len(files))
        return await self._decoded(files, [param] * len(files))

    async def _bytes_of(self, url: str, param: str) -> bytes:
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return data_uri_bytes(url, param)
        if scheme in ("http", "https"):
            return await self._fetcher.fetch(url, param)
        raise Refusal(
            f"{param} must be a data URI (data:image/png;base64,...) or an http(s) address, got "
            f"{_shortened(url)}",
            param=param,
            code="invalid_image_url",
        )

    async def _decoded(self, files: Sequence[bytes], params: Sequence[str]) -> list[Pillow.Image]:
        return await asyncio.to_thread(self._decode_all, files, params)

    def _decode_all(self, files: Sequence[bytes], params: Sequence[str]) -> list[Pillow.Image]:
        pictures: list[Pillow.Image] = []
        num_pixels = 0
        for data, param in zip(files, params, strict=True):
            pictures.append(self._decode(data, param))
            num_pixels += pictures[-1].width * pictures[-1].height
            if num_pixels > self._limits.max_pixels:
                raise Refusal(
                    f"the pictures of the request have more than {self._limits.max_pixels:,} "
                    "pixels together; make them smaller first",
                    param=param,
                    code="invalid_image",
                )
        return pictures

    def _decode(self, data: bytes, param: str) -> Pillow.Image:
        try:
            return open_picture(data, max_pixels=self._limits.max_pixels)
        except PictureError as error:
            raise Refusal(f"{param}: {error}", param=param, code="invalid_image") from error

    def _check_number(self, number: int) -> None:
        most = self._limits.max_pictures
        if number > most:
            raise Refusal(f"the request brings {number} pictures; at most {most} are read")


def data_uri_bytes(url: str, param: str) -> bytes:
    """Return what a data URI holds."""
    match = _DATA_URI.fullmatch(url)
    if match is None:
        raise Refusal(
            f"{param} is no complete data URI: {_shortened(url)}; expected "
            "data:image/png;base64,... ",
            param=param,
            code="invalid_image_url",
        )
    if ";base64" not in match["options"].lower():
        return unquote_to_bytes(match["data"])
    try:
        return base64.b64decode("".join(match["data"].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(
            f"{param} is a data URI whose base64 is damaged: {error}",
            param=param,
            code="invalid_image_url",
        ) from error


def _shortened(url: str) -> str:
    return repr(url if len(url) <= 60 else f"{url[:59]}…")
