"""A tokenizer in a process of its own: what its import loads, its fingerprint and its codes.

`run_fresh_process` starts `python -m mmgen.testing.fresh_process JOB`, where JOB is a directory
that holds the question and receives the answer.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import operator
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from mmgen.testing.subject import Fault, Subject, encode
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes

__all__ = ["ALLOWED_MODULES", "FreshProcess", "Imported", "run_fresh_process"]

ALLOWED_MODULES = ("mmgen.autoencoding", "mmgen.errors", "mmgen.testing", "mmgen.visual_tokenizer")
"""What a plugin may import of mmgen, with all that is in it."""

TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What importing the plugin's module did."""

    is_cuda_initialized: bool
    """Whether a CUDA context exists afterwards."""
    has_torch: bool
    """Whether torch is loaded afterwards."""
    mmgen_modules: tuple[str, ...]
    """Modules of mmgen it loaded that a plugin may not import."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshProcess:
    """What the other process found."""

    imported: Imported
    fingerprint: str
    codes: tuple[Codes, ...]
    """Of the subject's mixed pictures."""


def run_fresh_process(subject: Subject) -> FreshProcess:
    """Return what a fresh process finds; the second call for a subject answers from the first."""
    job = subject.directory / "fresh"
    if not (job / "answer.json").exists():
        _start(subject, job)
    answer = json.loads((job / "answer.json").read_text(encoding="utf-8"))
    imported = answer["imported"]
    with np.load(job / "codes.npz", allow_pickle=False) as arrays:
        codes = tuple(
            Codes(arrays[f"codes_{number}"], subject.spec.layouts[index])
            for number, index in enumerate(answer["layouts"])
        )
    return FreshProcess(
        imported=Imported(**imported | {"mmgen_modules": tuple(imported["mmgen_modules"])}),
        fingerprint=answer["fingerprint"],
        codes=codes,
    )


def _start(subject: Subject, job: Path) -> None:
    kind = type(subject.tokenizer)
    if "<locals>" in kind.__qualname__:
        raise Fault(f"{kind.__qualname__} is defined in a function; define it in a module")
    job.mkdir(exist_ok=True)
    question = {
        "module": kind.__module__,
        "qualname": kind.__qualname__,
        "file": getattr(sys.modules[kind.__module__], "__file__", None),
        "saved": None if subject.saved is None else str(subject.saved),
    }
    (job / "question.json").write_text(json.dumps(question), encoding="utf-8")
    pictures = {f"picture_{index}": picture for index, picture in enumerate(subject.mixed)}
    np.savez(job / "pictures.npz", allow_pickle=False, **pictures)
    done = subprocess.run(
        [sys.executable, "-m", "mmgen.testing.fresh_process", str(job)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "4711"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Fault(f"a fresh process ended with code {done.returncode}: {last}")


def _is_allowed(module: str, own: str) -> bool:
    """Whether a plugin of the package `own` may import a module of mmgen.

    Wrappers are plugins whose package is one of mmgen's.
    """
    known = (*ALLOWED_MODULES, own)
    return any(module == name or module.startswith(name + ".") for name in known)


def _answer(job: Path) -> None:
    """Answer the question of a job: the other process."""
    question = json.loads((job / "question.json").read_text(encoding="utf-8"))
    before = set(sys.modules)
    start = time.perf_counter()
    module = _import(question["module"], question["file"])
    seconds = time.perf_counter() - start
    torch = sys.modules.get("torch")
    new = {name for name in set(sys.modules) - before if name.startswith("mmgen.")}
    own = question["module"].rpartition(".")[0] or question["module"]
    imported = Imported(
        is_cuda_initialized=torch is not None and bool(torch.cuda.is_initialized()),
        has_torch=torch is not None,
        mmgen_modules=tuple(sorted(name for name in new if not _is_allowed(name, own))),
        seconds=seconds,
    )
    kind: type[AbstractVisualTokenizer] = operator.attrgetter(question["qualname"])(module)
    saved = question["saved"]
    tokenizer = kind.load(None if saved is None else Path(saved))
    with np.load(job / "pictures.npz", allow_pickle=False) as arrays:
        pictures = [arrays[f"picture_{index}"] for index in range(len(arrays.files))]
    codes = encode(tokenizer, pictures)
    np.savez(
        job / "codes.npz",
        allow_pickle=False,
        **{f"codes_{index}": item.array for index, item in enumerate(codes)},
    )
    answer = {
        "imported": asdict(imported),
        "fingerprint": tokenizer.fingerprint,
        "layouts": [tokenizer.spec.layouts.index(item.layout) for item in codes],
    }
    (job / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _import(name: str, file: str | None) -> ModuleType:
    """Import by name, or from the file of a module that was itself not imported by name."""
    try:
        found = None if name == "__main__" else importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is not None:
        return importlib.import_module(name)
    assert file is not None, f"{name} has neither a name to import nor a file"
    spec = importlib.util.spec_from_file_location("tokenizer_under_test", file)
    assert spec is not None and spec.loader is not None, f"{file} is not a Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    _answer(Path(sys.argv[1]))
