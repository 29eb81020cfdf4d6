"""Parity of a full-size CLIP with torch, by itself.

python benchmarks/make_checkpoint.py CHECKPOINT --clip l14 --clip-only
python benchmarks/clip.py CHECKPOINT/clip --name clip-l14-cpu
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import torch
from harness import PHOTO, save
from pipeline import CLASSES, compare_clip
from transformers import CLIPModel

from dslo_jax import SegmenterConfig, images, prompts
from dslo_jax.bench.machine import describe_machine
from dslo_jax.models.clip import load_clip
from dslo_jax.templates import IMAGENET_TEMPLATES
from torch_bridge import reference


TEMPLATES = IMAGENET_TEMPLATES[:8]  # parity needs no more


def main() -> None:
    """Compare, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="clip-l14-cpu")
    options = parser.parse_args()
    config = SegmenterConfig()
    classes = prompts.split_classes(CLASSES)
    tokenizer = prompts.load_tokenizer(options.folder)
    network = CLIPModel.from_pretrained(options.folder).eval()
    photo = images.read_photo(PHOTO).pixels
    size = images.short_side_size(
        photo.shape[:2], config.clip.short_side, network.config.vision_config.patch_size
    )
    pixels = images.resize_photo(photo, size, method=config.clip.resample)
    with torch.inference_mode():
        text = reference.text_features(network, tokenizer, classes.names, TEMPLATES)
    with jax.default_matmul_precision("highest"):
        parity = compare_clip(
            load_clip(options.folder),
            tokenizer,
            network,
            text,
            classes,
            pixels.astype(np.float32) / 255,
            TEMPLATES,
        )
    result = {"schema": "dslo.bench.clip.v1"} | describe_machine()
    print(parity, save(options.name, result | {"parity": {"float32": parity}}))


if __name__ == "__main__":
    main()
