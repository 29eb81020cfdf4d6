"""Write full-size checkpoints with seeded random weights, in Hugging Face layout.

They have every tensor of the real ones and prove loading, parity and speed; they have
learned nothing. Attention projections are scaled up, so that attention maps are as
uneven as those of a trained network and a mistake in them is seen.

    python benchmarks/make_checkpoint.py OUT                  # CLIP-B/16, SD2: 5.8 GB
    python benchmarks/make_checkpoint.py OUT --clip l14 --clip-only
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from dslo_jax.bench.full_size import CLIP, UNET, VAE, VOCABULARY
from dslo_jax.demo.tokenizer import write_tokenizer


TEXT_ENCODER = {
    "hidden_size": 1024,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "projection_dim": 512,
    "hidden_act": "gelu",
}


def sharpen(model: torch.nn.Module, names: tuple[str, ...], factor: float) -> None:
    """Scale the query and key projections, so that attention is uneven."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in names) and name.endswith("weight"):
                parameter.mul_(factor)


def make_clip(folder: Path, size: str) -> None:
    """Write a CLIP model with random weights."""
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**CLIP[size]))
    sharpen(model, ("q_proj", "k_proj"), 3.0)
    model.save_pretrained(folder)
    write_tokenizer(folder, size=VOCABULARY)


def make_diffusion(folder: Path) -> None:
    """Write the networks of Stable Diffusion 2 with random weights."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    sharpen(unet, ("attn1.to_q", "attn1.to_k"), 3.0)
    unet.save_pretrained(folder / "unet")
    del unet
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    text = CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))
    text.save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer", size=VOCABULARY, pad_token="!")
    index = {"_class_name": "StableDiffusionPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))


def main() -> None:
    """Write the checkpoints that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--clip", choices=CLIP, default="b16")
    parser.add_argument("--clip-only", action="store_true")
    options = parser.parse_args()
    make_clip(options.out / "clip", options.clip)
    if not options.clip_only:
        make_diffusion(options.out / "diffusion")


if __name__ == "__main__":
    main()
