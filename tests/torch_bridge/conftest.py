"""Tiny networks with seeded random weights, in the layouts of their libraries."""

import pytest
import torch
from checkpoints.clip import (
    randomise,
    save_clip,
    save_text_encoder,
    save_tokenizer,
)
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

from torch_bridge.reference import Diffusion


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A ``CLIPModel`` of 3 blocks on a 4 x 4 grid."""
    return save_clip(tmp_path_factory.mktemp("clip"), seed=0)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def diffusion(tmp_path_factory, tokenizer):
    """Stable Diffusion 2 in small: four levels, a factor of 8 in the autoencoder."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(16, 16, 16, 16),
        attention_head_dim=(2, 2, 2, 2),
        cross_attention_dim=32,
        layers_per_block=2,
        norm_num_groups=4,
        sample_size=8,
        use_linear_projection=True,
    )
    encoder = save_text_encoder(tmp_path_factory.mktemp("text_encoder"), seed=1)
    randomise(unet, 2)
    return Diffusion(vae.eval(), unet.eval(), encoder, tokenizer)


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def scene(request):
    """Logits of 3 classes and an affinity between 4 x 5 patches."""
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    logits = 0.2 + 0.05 * torch.randn(3, 20, generator=generator, dtype=torch.float64)
    affinity = torch.softmax(1.5 * scores, dim=1)
    return logits.to(request.param), affinity.to(request.param)


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def logits():
    """Of 3 classes, for a ``DSLOHead``."""
    return torch.randn(2, 3, 4, 6, generator=_generator(0))


@pytest.fixture
def attention():
    """Between 4 x 6 patches."""
    return torch.softmax(3 * torch.randn(2, 24, 24, generator=_generator(1)), dim=-1)


@pytest.fixture
def image():
    return torch.randint(
        0, 256, (2, 3, 30, 45), generator=_generator(2), dtype=torch.uint8
    )
