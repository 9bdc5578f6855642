"""Options of batch commands that say how captions and pictures are made and which are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mmgen.errors import SettingsError

if TYPE_CHECKING:
    from mmgen.batch.readers import AbstractReader
    from mmgen.batch.tasks.caption_controls import AnswerForm, CaptionControls

__all__ = [
    "caption_controls",
    "caption_options",
    "expanding",
    "filtering",
    "generate_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_CAPTION_OPTIONS = [
    click.option(
        "--ask",
        multiple=True,
        metavar="[NAME=]TEXT",
        help="What to ask, with {fields} of the row; repeat it for several captions.",
    ),
    click.option("--prefix", default="", metavar="TEXT", help="How every caption begins."),
    click.option("--include", multiple=True, metavar="WORDS", help="Must come; may be repeated."),
    click.option("--avoid", multiple=True, metavar="WORDS", help="May not come; may be repeated."),
    click.option("--min-words", type=int, default=0, help="Fewest words."),
    click.option("--max-words", type=int, help="Most words."),
    click.option(
        "--json-schema",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Captions are JSON of this schema.",
    ),
    click.option("--choices", metavar="A,B,...", help="Captions are one of these."),
    click.option("--regex", metavar="PATTERN", help="Captions match this as a whole."),
    click.option(
        "--grammar",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Captions follow this grammar, in Lark's syntax.",
    ),
    click.option(
        "--best-of", "tries", type=int, default=1, metavar="N", help="Keep the likeliest of N."
    ),
    click.option("--scores", is_flag=True, help="Tell how likely the model finds captions."),
    click.option(
        "--score-field", metavar="NAME", help="Tell how likely it finds the text of this field."
    ),
    click.option(
        "--min-side", type=int, default=0, metavar="PIXELS", help="Leave out smaller pictures."
    ),
    click.option("--max-aspect", type=float, metavar="RATIO", help="Leave out longer pictures."),
    click.option(
        "--duplicates",
        type=click.Choice(["keep", "same", "alike"]),
        default="keep",
        show_default=True,
        help="Leave out pictures with the same bytes, or that look alike.",
    ),
]

_GENERATE_OPTIONS = [
    click.option("--template", metavar="TEXT", help="Prompt with {fields} of the row."),
    click.option("--negative", metavar="TEXT", help="What guidance shall lead away from."),
    click.option(
        "-n", "--number", type=int, default=1, show_default=True, help="Pictures of each prompt."
    ),
    click.option(
        "--grid",
        multiple=True,
        metavar="NAME=A,B,...",
        help="Draw each prompt with every value of a setting; may be repeated.",
    ),
    click.option(
        "--best-of",
        "tries",
        type=int,
        default=1,
        metavar="N",
        help="Draw N pictures and keep the one whose prompt the model finds likeliest.",
    ),
]


def caption_options(command: Command) -> Command:
    """Add the options of captions."""
    return _with(_CAPTION_OPTIONS, command)


def generate_options(command: Command) -> Command:
    """Add the options of drawing."""
    return _with(_GENERATE_OPTIONS, command)


def caption_controls(options: dict[str, Any]) -> CaptionControls:
    """Take the options of captions out of a command's and return what they say."""
    from mmgen.batch.tasks.caption_controls import CaptionControls
    from mmgen.batch.templates import named_templates
    from mmgen.generate.words import WordSettings

    asked = named_templates(options.pop("ask"))
    return CaptionControls(
        prompts={name: template.text for name, template in asked.items()},
        prefix=options.pop("prefix"),
        words=WordSettings(
            include=options.pop("include"),
            avoid=options.pop("avoid"),
            min_words=options.pop("min_words"),
            max_words=options.pop("max_words"),
        ),
        form=_form(options),
        tries=options.pop("tries"),
        has_scores=options.pop("scores"),
        given=options.pop("score_field"),
    )


def filtering(options: dict[str, Any]) -> Callable[[AbstractReader], AbstractReader]:
    """Take the options of filters out of a command's; return what leaves pictures out."""
    from mmgen.batch.filters import FilteredReader, PictureFilter

    rules = PictureFilter(
        min_side=options.pop("min_side"),
        max_aspect=options.pop("max_aspect"),
        duplicates=options.pop("duplicates"),
    )

    def adapt(reader: AbstractReader) -> AbstractReader:
        if rules.is_free:
            return reader
        filtered = FilteredReader(reader, rules)
        for reason, count in filtered.left_out.items():
            click.echo(f"{count:,} left out: {reason}", err=True)
        if filtered.left_out and next(filtered.rows(), None) is None:
            raise SettingsError("every picture is left out; ask less of them")
        return filtered

    return adapt


def expanding(options: dict[str, Any]) -> Callable[[AbstractReader], AbstractReader]:
    """Take the options of samples and grids out of a command's; return what multiplies rows."""
    from mmgen.batch.expansion import ExpandedReader, Expansion, parse_grid

    expansion = Expansion(number=options.pop("number"), grid=parse_grid(options.pop("grid")))
    return lambda reader: ExpandedReader(reader, expansion)


def _form(options: dict[str, Any]) -> AnswerForm | None:
    from mmgen.batch.tasks.caption_controls import AnswerForm

    schema, grammar = options.pop("json_schema"), options.pop("grammar")
    choices, regex = options.pop("choices"), options.pop("regex")
    given = {
        "--json-schema": schema,
        "--choices": choices,
        "--regex": regex,
        "--grammar": grammar,
    }
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise SettingsError(f"{' and '.join(named)} exclude each other; choose one form")
    if schema is not None:
        return AnswerForm("json", _read(schema))
    if grammar is not None:
        return AnswerForm("grammar", _read(grammar))
    if choices is not None:
        return AnswerForm("choice", "\n".join(item.strip() for item in choices.split(",")))
    return None if regex is None else AnswerForm("regex", regex)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error


def _with(options: list[Callable[[Any], Any]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
