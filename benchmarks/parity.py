"""Parity of the main job with eager PyTorch, network by network and as a whole.

Both load the same checkpoint and see the same resized pixels. Times are those of
``dslo bench pipeline --against torch``.

    python benchmarks/make_checkpoint.py CHECKPOINT
    python benchmarks/parity.py CHECKPOINT
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from flax import nnx
from harness import PHOTO, save
from transformers import CLIPModel, CLIPTextModel

from dslo_jax import Segmenter, SegmenterConfig, images, prompts
from dslo_jax.attention import DiffusionAffinity
from dslo_jax.bench.machine import describe_machine
from dslo_jax.bench.truth import scaled_error
from dslo_jax.logits import ClipLogits
from dslo_jax.models.clip import load_clip
from dslo_jax.pipeline import Networks
from dslo_jax.templates import IMAGENET_TEMPLATES
from torch_bridge import reference
from torch_bridge.reference.dense_clip import DEFINITIONS


CLASSES = "coffee, cup|mug, saucer|plate, spoon, wooden table"
MODES = ("path", "velocity")


def load_torch(folder: Path) -> tuple[Any, reference.Diffusion]:
    """The same networks in torch."""
    parts = folder / "diffusion"
    diffusion = reference.Diffusion(
        vae=AutoencoderKL.from_pretrained(parts / "vae").eval(),
        unet=UNet2DConditionModel.from_pretrained(parts / "unet").eval(),
        text_encoder=CLIPTextModel.from_pretrained(parts / "text_encoder").eval(),
        tokenizer=prompts.load_tokenizer(parts / "tokenizer"),
    )
    return CLIPModel.from_pretrained(folder / "clip").eval(), diffusion


def run_torch(networks, constants, photo, classes, inputs, config):
    """One photo through the reference; both texts are encoded already."""
    text, prompt = constants
    clip, diffusion = networks
    with torch.inference_mode():
        pixels = {name: torch.from_numpy(value) for name, value in inputs.items()}
        features = reference.dense_features(
            clip, pixels["clip"], attention=config.clip.attention
        )
        affinity = reference.diffusion_affinity(
            diffusion, pixels["affinity"], prompt=prompt
        )
        return reference.segment_logits(
            reference.class_logits(features, text, classes.class_of_name),
            affinity,
            (64, 64),
            torch.from_numpy(photo.pixels.copy()),
            config=config,
        )


def relative(ours: Any, theirs: Any) -> float:
    """Greatest difference over the greatest magnitude."""
    return scaled_error(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))


def compare_clip(
    clip, tokenizer, torch_clip, text, classes, pixels, templates=IMAGENET_TEMPLATES
) -> dict:
    """Parity of CLIP by itself."""
    graph, state = nnx.split(clip)
    dense = jax.jit(
        lambda state, pixels, attention: nnx.merge(graph, state).dense_features(
            pixels, attention=attention
        ),
        static_argnames="attention",
    )
    encode = jax.jit(lambda state, ids: nnx.merge(graph, state).encode_text(ids))
    result = {}
    for variant in DEFINITIONS:
        with torch.inference_mode():
            theirs = reference.dense_features(
                torch_clip, torch.from_numpy(pixels), attention=variant
            )
        ours = dense(state, jnp.asarray(pixels)[None], attention=variant)[0]
        result[f"clip dense features, {variant}"] = relative(ours, theirs)
    embedded = prompts.embed_names(
        lambda ids: encode(state, ids), tokenizer, classes.names, templates
    )
    return result | {"clip text features": relative(embedded, text)}


def compare_diffusion(affinity, diffusion, pixels) -> dict:
    """Parity of the VAE and the UNet, apart and together."""
    with torch.inference_mode():
        photo = torch.from_numpy(pixels)
        latents = reference.encode(diffusion.vae, photo[None]).permute(0, 2, 3, 1)
        attention = reference.diffusion_affinity(diffusion, photo)
    encode = nnx.jit(lambda module, pixels: module.encode(pixels))
    attend = nnx.jit(lambda module, latents: module.attend(latents))
    ours = encode(affinity, jnp.asarray(pixels)[None])
    same = jnp.asarray(np.ascontiguousarray(latents))
    return {
        "vae latents": relative(ours, latents),
        "unet affinity, same latents": relative(attend(affinity, same)[0], attention),
        "vae and unet affinity": relative(attend(affinity, ours)[0], attention),
    }


def main() -> None:
    """Compare, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default="parity")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    classes = prompts.split_classes(CLASSES)
    config = SegmenterConfig()
    photo = images.read_photo(PHOTO)
    networks = load_torch(options.checkpoint)
    tokenizer = prompts.load_tokenizer(options.checkpoint / "clip")
    patch = networks[0].config.vision_config.patch_size
    clip_size = images.short_side_size(
        photo.pixels.shape[:2], config.clip.short_side, patch
    )
    inputs = {
        "clip": images.resize_photo(
            photo.pixels, clip_size, method=config.clip.resample
        ),
        "affinity": images.resize_photo(photo.pixels, (512, 512), method="area"),
    }
    inputs = {name: pixels.astype(np.float32) / 255 for name, pixels in inputs.items()}
    result: dict[str, Any] = {"schema": "dslo.parity.v1"} | describe_machine()
    result |= {"photo": PHOTO.name, "classes": CLASSES, "parity": {}}

    with torch.inference_mode():
        text = reference.text_features(
            networks[0], tokenizer, classes.names, IMAGENET_TEMPLATES
        )
    prompt = reference.empty_prompt(networks[1].text_encoder, networks[1].tokenizer)
    for precision in options.precisions:
        clip = load_clip(options.checkpoint / "clip", dtype=precision)
        affinity = DiffusionAffinity.load(
            options.checkpoint / "diffusion", dtype=precision
        )
        with jax.default_matmul_precision("highest"):
            result["parity"][precision] = compare_clip(
                clip, tokenizer, networks[0], text, classes, inputs["clip"]
            ) | compare_diffusion(affinity, networks[1], inputs["affinity"])
        for mode in MODES:
            chosen = config.with_options(mode=mode)
            loaded = Networks(ClipLogits(clip), tokenizer, affinity)
            segmenter = Segmenter(loaded, chosen)
            ours = segmenter(photo, classes)
            theirs = run_torch(networks, (text, prompt), photo, classes, inputs, chosen)
            active = theirs.active.numpy()
            result["parity"][precision] |= {
                f"{mode}, discrepancy": relative(
                    ours.discrepancy[active].reshape(len(active), -1),
                    theirs.discrepancy,
                ),
                f"{mode}, share of equal labels": float(
                    np.mean(ours.labels == theirs.labels.numpy())
                ),
            }
        print(result["parity"][precision], save(options.name, result))
        del clip, affinity, loaded, segmenter


if __name__ == "__main__":
    main()
