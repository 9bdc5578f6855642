"""`mmgen generate` and `mmgen caption`: words to pictures and pictures to words.

Both hand all their inputs to one session, so that the engine serves them together. An input that
fails is reported and the others go on. Whatever can be wrong without the model is found before the
model is loaded.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mmgen.cli.engines import engine_option, open_engine
from mmgen.cli.lines import complain, one_line, printable, progress_bar, shortened
from mmgen.errors import MmgenError, SettingsError

if TYPE_CHECKING:
    from mmgen.generate.engine import SamplingParams
    from mmgen.generate.engines import EngineName
    from mmgen.generate.events import ImageFinished
    from mmgen.generate.provenance import Provenance
    from mmgen.generate.requests import DrawRequest
    from mmgen.generate.session import Session

__all__ = ["caption", "generate"]

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_DRAWN_SEED = 2**32
"""Seeds that are chosen for the user stay below, so that they are easy to copy."""


def _sampling_options(command: Command) -> Command:
    options = [
        click.option("--temperature", type=float, help="Spread of the choice; 0 for none."),
        click.option("--top-k", type=int, help="Choose among the K best only."),
        click.option("--top-p", type=float, help="Choose among the best of this probability."),
        click.option("--seed", type=int, help="Decides the result.  [default: a random one]"),
        click.option("--model", metavar="NAME|DIR", help="Model to use.  [default: mini]"),
        click.option("--tokenizer", metavar="NAME", help="Visual tokenizer of the model to use."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line."),
    ]
    for option in reversed(options):
        command = option(command)
    return engine_option(command)


@click.command()
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="PNG file for one picture, directory for several.  [default: named by the prompt]",
)
@click.option("-n", "--number", type=int, help="Pictures per prompt.  [default: 1]")
@click.option("--guidance", type=float, help="How strongly the prompt counts; 1 is neutral.")
@click.option("--negative", metavar="TEXT", help="What guidance shall lead away from.")
@click.option("--size", metavar="WxH", help="Size in pixels, among those of the model.")
@click.option("--length", type=int, metavar="N", help="Positions, for models of several lengths.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw this picture again, exactly as it was drawn.",
)
@_sampling_options
@click.pass_context
def generate(
    ctx: click.Context,
    prompts: tuple[str, ...],
    output: Path | None,
    number: int | None,
    guidance: float | None,
    negative: str | None,
    size: str | None,
    length: int | None,
    source: Path | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    model: str | None,
    tokenizer: str | None,
    as_json: bool,
    engine: EngineName,
) -> None:
    """Draw a picture of each PROMPT and print where it was saved.

    Without PROMPT, or for a PROMPT of -, prompts are read from standard input, one per line.
    """
    from mmgen.cli.drawings import check_writable, plan_paths
    from mmgen.generate.engine import MAX_SEED
    from mmgen.generate.provenance import Provenance, parse_size
    from mmgen.generate.requests import DrawRequest

    sampling = _given(temperature=temperature, top_k=top_k, top_p=top_p)
    number_wanted = 1 if number is None else number
    if number_wanted < 1:
        raise SettingsError(f"-n must be 1 or more, got {number_wanted}")
    provenance: Provenance | None = None
    if source is not None:
        fixed: dict[str, object] = {
            "-n": number,
            "--guidance": guidance,
            "--negative": negative,
            "--size": size,
            "--length": length,
            "--seed": seed,
        }
        fixed |= {f"--{name.replace('_', '-')}": value for name, value in sampling.items()}
        fixed |= {"--tokenizer": tokenizer, "PROMPT": prompts or None}
        given = [name for name, value in fixed.items() if value is not None]
        if given:
            raise SettingsError(
                f"--from draws a picture as it was drawn; leave out {', '.join(given)}"
            )
        provenance = Provenance.read(source)
        texts, requests = [provenance.prompt], [provenance.request()]
    else:
        texts = _prompts(prompts)
        first = secrets.randbelow(MAX_DRAWN_SEED) if seed is None else seed
        if not 0 <= first <= MAX_SEED - number_wanted:
            raise SettingsError(f"a seed must be 0 or more and below 2**63, got {first}")
        requests = [
            DrawRequest(
                prompt=text,
                seed=first + sample,
                guidance_scale=guidance,
                negative_prompt=negative,
                size=None if size is None else parse_size(size),
                tokenizer=tokenizer,
                length=length,
            )
            for text in texts
            for sample in range(number_wanted)
        ]
    paths = plan_paths(texts, number_wanted, output)
    check_writable(paths)
    drawing = _Drawing(as_json=as_json, source=source, provenance=provenance)
    good = drawing.refuse_bad_prompts(requests)
    if good:
        drawing.run(engine, model, [(requests[index], paths[index]) for index in good], sampling)
    ctx.exit(1 if drawing.has_failed else 0)


class _Drawing:
    """One run of `mmgen generate`: draws requests, saves pictures, reports on each."""

    def __init__(
        self, *, as_json: bool, source: Path | None, provenance: Provenance | None
    ) -> None:
        self._as_json = as_json
        self._source = source
        self._provenance = provenance
        self._refused: set[str] = set()

    @property
    def has_failed(self) -> bool:
        return bool(self._refused)

    def refuse_bad_prompts(self, requests: Sequence[DrawRequest]) -> list[int]:
        """Report prompts that no model could serve; return the indices of the others."""
        from mmgen.generate.requests import check_prompt

        good = []
        for index, request in enumerate(requests):
            try:
                check_prompt(request.prompt)
            except SettingsError as error:
                self._report(request.prompt, error)
            else:
                good.append(index)
        return good

    def run(
        self,
        engine: EngineName,
        model: str | None,
        jobs: Sequence[tuple[DrawRequest, Path]],
        sampling: dict[str, Any],
    ) -> None:
        """Draw and save pictures."""
        from mmgen.checkpoint import DEFAULT_MODEL
        from mmgen.generate.events import ImageFinished, ImageProgress, TurnFailed

        name = model or (self._provenance.model if self._provenance else DEFAULT_MODEL)
        session = open_engine(engine, name, parts="decoder")
        if self._provenance is not None and self._source is not None:
            self._provenance.check(session.checkpoint, self._source)
        requests = [request for request, _ in jobs]
        if sampling:
            merged = _merged(sampling, session.checkpoint.generation.image)
            requests = [replace(request, sampling=merged) for request in requests]
        with progress_bar("drawing", len(jobs)) as bar:
            for event in session.draw_many(requests):
                match event:
                    case ImageProgress():
                        bar.advance(1 / event.num_codes)
                    case ImageFinished():
                        request, path = jobs[event.index]
                        with bar.aside():
                            self._finish(event, request, path, name, session)
                    case TurnFailed():
                        with bar.aside():
                            self._report(requests[event.index].prompt, event.error)

    def _finish(
        self, image: ImageFinished, request: DrawRequest, path: Path, model: str, session: Session
    ) -> None:
        try:
            self._save(image, request, path, model, session)
        except MmgenError as error:
            self._report(request.prompt, error)

    def _save(
        self, image: ImageFinished, request: DrawRequest, path: Path, model: str, session: Session
    ) -> None:
        from mmgen.generate.provenance import Provenance
        from mmgen.pictures import half_blocks, save_png, to_picture

        image = self._as_recorded(image, session)
        picture = to_picture(image.picture)
        provenance = Provenance.of(
            image, request.prompt, model, session.checkpoint, length=request.length
        )
        save_png(picture, path, provenance.metadata())
        if self._as_json:
            found = {
                "path": str(path),
                "prompt": request.prompt,
                "seed": provenance.seed,
                "guidance_scale": provenance.guidance_scale,
                "width": picture.width,
                "height": picture.height,
                "seconds": round(image.seconds, 3),
                "model": model,
            }
            click.echo(json.dumps(found))
            return
        click.echo(click.format_filename(path))
        if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            columns = min(picture.width, shutil.get_terminal_size().columns - 1, 64)
            click.echo(half_blocks(picture, max(columns, 1)))

    def _as_recorded(self, image: ImageFinished, session: Session) -> ImageFinished:
        """Return a repeated picture with the codes of the original.

        The same weights may round differently on another processor; then a choice between two
        ids that are almost equally good can fall differently, and the record decides.
        """
        import numpy as np

        from mmgen.visual_tokenizer import Codes

        if self._provenance is None:
            return image
        recorded = np.array(self._provenance.codes, dtype=np.int64)
        if np.array_equal(recorded, image.codes.array):
            return image
        if recorded.shape != image.codes.array.shape:
            raise SettingsError(f"{self._source} has damaged metadata: codes of another shape")
        num_other = int((recorded != image.codes.array).any(axis=1).sum())
        click.echo(
            f"mmgen: note: this machine's arithmetic draws {num_other} of {len(recorded)} codes "
            "otherwise; the recorded ones are shown",
            err=True,
        )
        codes = Codes(recorded, image.codes.layout)
        picture = session.codec.decode_image(codes, image.tokenizer, caption=image.caption)
        return replace(image, codes=codes, picture=picture)

    def _report(self, prompt: str, error: MmgenError) -> None:
        """Report a prompt's failure, once for all its pictures."""
        if prompt in self._refused:
            return
        self._refused.add(prompt)
        if self._as_json:
            click.echo(json.dumps({"prompt": shortened(prompt), "error": one_line(error)}))
        else:
            complain(shortened(prompt), error)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--prompt", help="What to ask.  [default: as the model has it]")
@click.option("--max-tokens", type=int, default=64, show_default=True, help="Longest answer.")
@_sampling_options
@click.pass_context
def caption(
    ctx: click.Context,
    images: tuple[str, ...],
    prompt: str | None,
    max_tokens: int,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    model: str | None,
    tokenizer: str | None,
    as_json: bool,
    engine: EngineName,
) -> None:
    """Say what is in each IMAGE: one answer per line, in the order of the inputs.

    An IMAGE of - is read from standard input.
    """
    from mmgen.generate.events import TurnFailed, TurnFinished
    from mmgen.generate.requests import CaptionRequest, check_prompt

    if prompt is not None:
        check_prompt(prompt)
    sampling = _given(temperature=temperature, top_k=top_k, top_p=top_p)
    first = secrets.randbelow(MAX_DRAWN_SEED) if seed is None else seed
    requests = [
        CaptionRequest(
            picture=sys.stdin.buffer.read() if image == "-" else Path(image),
            prompt=prompt,
            seed=first,
            max_text_ids=max_tokens,
            tokenizer=tokenizer,
        )
        for image in images
    ]
    session = open_engine(engine, model, parts="encoder")
    if sampling:
        merged = _merged(sampling, session.checkpoint.generation.text)
        requests = [replace(request, sampling=merged) for request in requests]
    answers: dict[int, str | MmgenError] = {}
    num_printed, has_failed = 0, False
    with progress_bar("looking", len(images)) as bar:
        for event in session.run(requests):
            if isinstance(event, TurnFinished):
                answers[event.index] = event.text
            elif isinstance(event, TurnFailed):
                answers[event.index] = event.error
                has_failed = True
            else:
                continue
            bar.advance(1)
            while num_printed in answers:
                with bar.aside():
                    _print_answer(images[num_printed], answers.pop(num_printed), as_json)
                num_printed += 1
    ctx.exit(1 if has_failed else 0)


def _print_answer(image: str, answer: str | MmgenError, as_json: bool) -> None:
    if isinstance(answer, MmgenError):
        if as_json:
            click.echo(json.dumps({"input": image, "error": one_line(answer)}))
        else:
            complain(None, answer)
    elif as_json:
        click.echo(json.dumps({"input": image, "caption": answer.strip()}))
    else:
        click.echo(printable(answer))


def _prompts(arguments: Sequence[str]) -> list[str]:
    """Return the prompts of the command line, those of standard input in the place of `-`."""
    if not arguments and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or prompts on standard input")
    prompts: list[str] = []
    for argument in arguments or ("-",):
        if argument == "-":
            text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")
            prompts += [line.rstrip("\r") for line in text.split("\n") if line.strip()]
        else:
            prompts.append(argument)
    if not prompts:
        raise SettingsError("there are no prompts on standard input; give one per line")
    return prompts


def _given(**settings: float | None) -> dict[str, Any]:
    """Return the sampling settings that were given, after checking them."""
    from mmgen.generate.engine import SamplingParams

    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    SamplingParams(**given)
    return given


def _merged(given: dict[str, Any], defaults: Any) -> SamplingParams:
    from mmgen.generate.engine import SamplingParams

    fields = ("temperature", "top_k", "top_p")
    return SamplingParams(**{name: getattr(defaults, name) for name in fields} | given)
