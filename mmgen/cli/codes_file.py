"""Codes of pictures as a file: JSON to read and to pipe, NPZ to keep many.

A file names its tokenizer and fingerprint, so that other weights cannot misread it. A layout is
stored as its `shape`, which no two layouts of one tokenizer share.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmgen.errors import DataError, OutputError, SettingsError
from mmgen.pictures import atomic_file
from mmgen.visual_tokenizer import Codes, VisualTokenizerSpec

__all__ = ["CodesFile", "check_output", "read_codes", "write_codes"]


@dataclass(frozen=True, slots=True)
class CodesFile:
    """What such a file holds."""

    tokenizer: str
    fingerprint: str
    inputs: tuple[str, ...]
    """What each picture was read from."""
    codes: tuple[Codes, ...]


def check_output(path: Path, *suffixes: str) -> None:
    """Refuse a path that cannot be written, and make its directory, before any work is done."""
    if path.suffix.lower() not in suffixes:
        raise SettingsError(f"cannot write {path}: its name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory; give a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the directory {path.parent}: {error.strerror}") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission; choose another place")


def write_codes(content: CodesFile, path: Path | None) -> None:
    """Write NPZ or JSON by the suffix of the path, or JSON to standard output."""
    pictures: list[dict[str, Any]] = [
        {"input": name, "shape": list(codes.layout.shape)}
        for name, codes in zip(content.inputs, content.codes, strict=True)
    ]
    header = {"tokenizer": content.tokenizer, "fingerprint": content.fingerprint}
    if path is not None and path.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            allow_pickle=False,
            header=np.array(json.dumps(header | {"pictures": pictures})),
            **{f"codes_{index}": codes.array for index, codes in enumerate(content.codes)},
        )
        data = buffer.getvalue()
    else:
        for item, codes in zip(pictures, content.codes, strict=True):
            item["codes"] = codes.array.tolist()
        data = (json.dumps(header | {"pictures": pictures}) + "\n").encode()
    if path is None:
        sys.stdout.write(data.decode())
        return
    with atomic_file(path) as partial:
        partial.write_bytes(data)


def read_codes(path: Path, tokenizer: str, spec: VisualTokenizerSpec) -> CodesFile:
    """Read what `write_codes` wrote, for a tokenizer of that name and spec; `-` is stdin."""
    expected = "expected a .json or .npz file that `mmgen tokenizer encode` wrote"
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; {expected}") from error
    layouts = {layout.shape: layout for layout in spec.layouts}
    try:
        header, arrays = _parse(data)
        if header["tokenizer"] != tokenizer:
            raise DataError(f"{path} has codes of {header['tokenizer']!r}, not of {tokenizer!r}")
        shapes = [tuple(item["shape"]) for item in header["pictures"]]
        unknown = [shape for shape in shapes if shape not in layouts]
        if unknown:
            raise DataError(f"{path} has a layout {unknown[0]} that {tokenizer} does not have")
        return CodesFile(
            tokenizer,
            str(header["fingerprint"]),
            tuple(str(item["input"]) for item in header["pictures"]),
            tuple(Codes(a, layouts[s]) for a, s in zip(arrays, shapes, strict=True)),
        )
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} holds no codes ({error}); {expected}") from error


def _parse(data: bytes) -> tuple[dict[str, Any], list[np.ndarray[Any, np.dtype[np.int64]]]]:
    """Return the header and the array of each picture."""
    if not data.startswith(b"PK"):
        header = json.loads(data)
        return header, [np.array(item["codes"], ndmin=2) for item in header["pictures"]]
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = json.loads(str(arrays["header"]))
        return header, [arrays[f"codes_{index}"] for index in range(len(header["pictures"]))]
