"""What a model in training draws and says, as a sheet of pictures.

The weights of the moment are exported as a full checkpoint and used through a session, exactly as
a user would use them; so a run also leaves a model to try while it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmgen.checkpoint import open_checkpoint
from mmgen.generate.engine import SamplingParams
from mmgen.generate.events import ImageFinished, TextDelta
from mmgen.generate.requests import CaptionRequest, DrawRequest
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.model import Decoder
from mmgen.pictures import save_png, sheet, to_picture
from mmgen.train.config import TrainConfig
from mmgen.train.export import export_decoder, load_vocabulary
from mmgen.train.trainer import OnSample

__all__ = ["draw_samples", "open_sampler"]


def open_sampler(config: TrainConfig) -> OnSample | None:
    """Return what draws the samples of a run, or none if its config wants none."""
    if not config.sample_every or not config.sample_prompts:
        return None

    def sample(decoder: Decoder, step: int) -> None:
        draw_samples(config, decoder, step, config.sample_prompts)

    return sample


def draw_samples(config: TrainConfig, decoder: Decoder, step: int, prompts: Sequence[str]) -> None:
    """Draw each prompt, ask the model what it drew, and save the sheet as `samples/step-N.png`.

    The weights are exported to `sampled/` in the run's directory on the way.
    """
    place = config.output / "sampled"
    export_decoder(decoder, load_vocabulary(config.export.vocabulary), config.export, place)
    checkpoint = open_checkpoint(place)
    session = Session(
        checkpoint, TorchEngine(checkpoint.load_decoder(device=decoder.embedding.weight.device))
    )
    drawn: dict[int, ImageFinished] = {}
    requests = [DrawRequest(prompt=prompt, seed=index) for index, prompt in enumerate(prompts)]
    for event in session.run(requests):
        if isinstance(event, ImageFinished):
            drawn[event.index] = event
    pictures = [to_picture(drawn[index].picture) for index in range(len(prompts))]
    answers = [""] * len(pictures)
    greedy = SamplingParams(temperature=0.0)
    questions = [CaptionRequest(picture=picture, sampling=greedy) for picture in pictures]
    for event in session.run(questions):
        if isinstance(event, TextDelta):
            answers[event.index] += event.text
    labels = [f"{prompt} > {answer}" for prompt, answer in zip(prompts, answers, strict=True)]
    folder = config.output / "samples"
    folder.mkdir(exist_ok=True)
    text = "\n".join(labels)
    save_png(sheet(pictures, labels, columns=8), folder / f"step-{step:08d}.png", {"labels": text})
