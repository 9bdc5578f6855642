"""Checks that a tokenizer is the same one in another process, after loading, on another device."""

from __future__ import annotations

import string
import sys

from mmgen.errors import PluginError
from mmgen.testing.fresh_process import ALLOWED_MODULES, run_fresh_process
from mmgen.testing.subject import (
    TOLERATED_CODES,
    TOLERATED_PIXEL,
    Check,
    Fault,
    NotApplicable,
    Subject,
    check_same_codes,
    check_same_pictures,
    decode,
    encode,
)
from mmgen.visual_tokenizer import AbstractVisualTokenizer

__all__ = ["IDENTITY_CHECKS"]

_PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_DEVICE_PIXEL = 0.02
_DEVICE_CODES = 0.02


def _fingerprint(subject: Subject) -> str:
    fingerprint = subject.tokenizer.fingerprint
    if len(fingerprint) != 64 or not set(fingerprint) <= set(string.hexdigits.lower()):
        raise Fault(f"fingerprint is {fingerprint!r}, expected 64 lower-case hex digits")
    if subject.tokenizer.fingerprint != fingerprint:
        raise Fault("fingerprint changes from one look to the next")
    encode(subject.tokenizer, subject.mixed[:1])
    if subject.tokenizer.fingerprint != fingerprint:
        raise Fault("fingerprint changes when a picture is encoded")
    return fingerprint


def _imports(subject: Subject) -> str:
    imported = run_fresh_process(subject).imported
    if imported.is_cuda_initialized:
        raise Fault(f"importing {type(subject.tokenizer).__module__} initialises CUDA")
    if imported.mmgen_modules:
        raise Fault(
            f"importing {type(subject.tokenizer).__module__} imports "
            f"{', '.join(imported.mmgen_modules)}"
        )
    return f"{imported.seconds:.2f} s, {'torch' if imported.has_torch else 'no torch'}, no CUDA"


def _fresh_process(subject: Subject) -> str:
    fresh = run_fresh_process(subject)
    if fresh.fingerprint != subject.tokenizer.fingerprint:
        raise Fault(f"fingerprint {subject.tokenizer.fingerprint} here, {fresh.fingerprint} there")
    return check_same_codes(subject.mixed_codes, fresh.codes, tolerated=TOLERATED_CODES)


def _save_and_load(subject: Subject) -> str:
    loaded = subject.reload()
    if loaded.fingerprint != subject.tokenizer.fingerprint:
        raise Fault(
            f"fingerprint {subject.tokenizer.fingerprint} when saved, "
            f"{loaded.fingerprint} when loaded"
        )
    codes = encode(loaded, subject.mixed)
    check_same_codes(subject.mixed_codes, codes, tolerated=TOLERATED_CODES)
    one, other = decode(subject.tokenizer, codes), decode(loaded, codes)
    check_same_pictures(one, other, tolerated=TOLERATED_PIXEL)
    if subject.saved is None:
        return "nothing to save; loaded without a path"
    files = sorted(path for path in subject.saved.rglob("*") if path.is_file())
    pickles = [path.name for path in files if path.suffix in _PICKLES]
    if pickles:
        raise Fault(f"save writes {', '.join(pickles)}, which can run code when loaded")
    return ", ".join(f"{path.name} ({path.stat().st_size:,} bytes)" for path in files)


def _halves(subject: Subject) -> str:
    kind = type(subject.tokenizer)
    encoder = kind.load(subject.saved, parts="encoder")
    decoder = kind.load(subject.saved, parts="decoder")
    codes = encode(encoder, subject.mixed)
    check_same_codes(subject.mixed_codes, codes, tolerated=TOLERATED_CODES)
    pictures = decode(subject.tokenizer, codes)
    check_same_pictures(pictures, decode(decoder, codes), tolerated=TOLERATED_PIXEL)
    refused = 0
    try:
        check_same_pictures(pictures, decode(encoder, codes), tolerated=TOLERATED_PIXEL)
    except PluginError:
        refused += 1
    try:
        check_same_codes(codes, encode(decoder, subject.mixed), tolerated=TOLERATED_CODES)
    except PluginError:
        refused += 1
    return f"each half works alone, {refused} of 2 refuse the other's work"


def _device(subject: Subject) -> str:
    if "torch" not in sys.modules:
        raise NotApplicable("the tokenizer does not use torch")
    import torch

    if not torch.cuda.is_available():
        raise NotApplicable("this machine has no CUDA device")
    loaded: AbstractVisualTokenizer = type(subject.tokenizer).load(subject.saved, device="cuda")
    codes = check_same_codes(
        subject.mixed_codes, encode(loaded, subject.mixed), tolerated=_DEVICE_CODES
    )
    if subject.spec.stochastic:
        return codes
    one, other = decode(subject.tokenizer, subject.mixed_codes), decode(loaded, subject.mixed_codes)
    return f"{codes}, {check_same_pictures(one, other, tolerated=_DEVICE_PIXEL)}"


IDENTITY_CHECKS = (
    Check(
        name="fingerprint",
        tried="read fingerprint several times",
        remedy="return hashlib.sha256(...).hexdigest() of settings and weights",
        run=_fingerprint,
    ),
    Check(
        name="imports",
        tried="import the plugin in a fresh process and look at what it loaded",
        remedy="touch no device at import, and import of mmgen only "
        + ", ".join(sorted(ALLOWED_MODULES)),
        run=_imports,
    ),
    Check(
        name="fresh process",
        tried="load in a fresh process with another hash seed; compare fingerprint and codes",
        remedy="build both from settings and weights alone: no hash(), id(), time, set order or "
        "memory address",
        run=_fresh_process,
    ),
    Check(
        name="save and load",
        tried="save, load, and compare fingerprint, codes and pixels",
        remedy="save all that load needs, as JSON and safetensors",
        run=_save_and_load,
    ),
    Check(
        name="halves",
        tried="load the encoder and the decoder alone",
        remedy="let each half do its own work, and raise PluginError for the other's",
        run=_halves,
    ),
    Check(
        name="device",
        tried="load on the CUDA device and compare with the CPU",
        remedy="take device from the argument of load and return numpy arrays",
        run=_device,
    ),
)
