"""Teachers: mmgen's own, and tiny models of transformers as their folders hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from mmgen.autoencoding import ContrastiveNetwork
from mmgen.errors import PluginError
from mmgen_semantic.teachers import ContrastiveTeacher, TransformersTeacher, load_teacher

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(seed))


def test_a_folder_of_ours_is_a_contrastive_teacher(teacher: Path) -> None:
    loaded = load_teacher(str(teacher))
    assert isinstance(loaded, ContrastiveTeacher)
    network = ContrastiveNetwork.load(teacher)
    lesson = loaded.look(images(), 2, 3)
    with torch.no_grad():
        assert torch.equal(lesson.places, network.places(images()))
        assert torch.allclose(lesson.whole, network.embedded(images()))
    assert loaded.look(images(), 4, 4).places.shape == (2, 4, 4, loaded.dim)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dino"])
def test_models_of_transformers_teach(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = {  # type: ignore[no-untyped-call]
        "clip": lambda: CLIPModel(CLIPConfig(vision_config=TINY, text_config={"hidden_size": 16})),
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**TINY)),
        "dino": lambda: Dinov2Model(Dinov2Config(**TINY)),
    }[kind]()
    model.save_pretrained(tmp_path)
    mean, deviation = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
    CLIPImageProcessorPil(image_mean=mean, image_std=deviation).save_pretrained(tmp_path)
    loaded = load_teacher(str(tmp_path))
    assert isinstance(loaded, TransformersTeacher)
    lesson = loaded.look(images(), 2, 3)
    assert lesson.places.shape == (2, 2, 3, 16) and lesson.whole.shape == (2, 16)
    assert not lesson.places.requires_grad

    # At its own size nothing is resized: the model itself, asked directly, says the same.
    square = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    scaled = (square - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    vision = getattr(model, "vision_model", model).eval()
    with torch.no_grad():
        output = vision(pixel_values=scaled)
    own = loaded.look(square, 4, 4)
    expected = output.last_hidden_state[:, -16:].reshape(1, 4, 4, 16)
    assert torch.allclose(own.places, expected, atol=1e-4)
    assert torch.allclose(own.whole, output.pooler_output, atol=1e-4)


def test_teachers_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="neither a folder with teacher_config") as caught:
        load_teacher(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_model_without_its_preprocessor_is_refused(tmp_path: Path) -> None:
    SiglipVisionModel(SiglipVisionConfig(**TINY)).save_pretrained(tmp_path)
    with pytest.raises(PluginError, match=r"preprocessor_config\.json"):
        load_teacher(str(tmp_path))
