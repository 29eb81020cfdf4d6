"""The part of CLIP: dense image features, text features, and their cosines.

It runs on a ``CLIPModel`` of transformers, without conversion.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torch_bridge.reference.dense_clip import DEFINITIONS


_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@torch.no_grad()
def dense_features(
    clip: Any, pixels: Float[Tensor, "*batch height width 3"], *, attention: str
) -> Float[Tensor, "*batch grid_height grid_width channels"]:
    """Compute a feature of unit length for each whole patch of a photo, or of several.

    Args:
        clip: A ``CLIPModel``.
        pixels: RGB in [0, 1], already resized. A last partial patch is dropped.
        attention: One of ``dense_clip.DEFINITIONS``.

    Returns:
        Features on the grid of floor(height / patch) x floor(width / patch) patches.

    Raises:
        ValueError: There is no definition of ``attention``.
    """
    if attention not in DEFINITIONS:
        raise ValueError(
            f"`attention` is {attention!r}, expected one of {', '.join(DEFINITIONS)}"
        )
    vision = clip.vision_model
    batch = pixels.shape[:-3]
    tokens, grid = _embed(vision, pixels.reshape(-1, *pixels.shape[-3:]))
    tokens, blocks = vision.pre_layrnorm(tokens), list(vision.encoder.layers)
    patches = DEFINITIONS[attention](blocks, tokens, grid)
    features = clip.visual_projection(vision.post_layernorm(patches))
    return F.normalize(features, dim=-1).reshape(*batch, *grid, -1)


def window_features(
    clip: Any,
    pixels: Float[Tensor, "*batch height width 3"],
    *,
    attention: str,
    window: int,
    stride: int,
) -> Float[Tensor, "*batch grid_height grid_width channels"]:
    """Compute ``dense_features`` of sliding windows, and their mean for each patch.

    Args:
        clip: A ``CLIPModel``.
        pixels: RGB in [0, 1], already resized to whole patches.
        attention: As for ``dense_features``.
        window: Side of a window in pixels, in whole patches; 0 for the whole photo.
        stride: Distance between two windows in pixels, in whole patches. The last
            window of a row or column is moved back to the border.

    Returns:
        Mean features, which are shorter than 1 where windows disagree.
    """
    if not window:
        return dense_features(clip, pixels, attention=attention)
    patch = clip.config.vision_config.patch_size
    height, width = pixels.shape[-3:-1]
    total, count = 0, torch.zeros(height // patch, width // patch, 1)
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            crop = pixels[..., top : top + window, left : left + window, :]
            found = dense_features(clip, crop, attention=attention)
            outside = left, width - left - crop.shape[-2]
            outside += top, height - top - crop.shape[-3]
            around = [0, 0, *(length // patch for length in outside)]
            total = total + F.pad(found, around)
            count += F.pad(torch.ones(*found.shape[-3:-1], 1), around)
    return total / count.to(pixels.device)


@torch.no_grad()
def text_features(
    clip: Any, tokenizer: Any, names: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "names channels"]:
    """Compute a feature of unit length for each name: the mean over all templates.

    Args:
        clip: A ``CLIPModel``.
        tokenizer: Its ``CLIPTokenizer``.
        names: Names or synonyms, in plain words.
        templates: Sentences with one ``{}``.

    Returns:
        Features, normalised before and after the mean.
    """
    features = []
    for name in names:
        tokens = tokenizer(
            [template.format(name) for template in templates],
            padding="max_length",
            max_length=clip.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(clip.device)
        sentences = clip.get_text_features(ids).pooler_output
        mean = F.normalize(sentences, dim=-1).mean(dim=0)
        features.append(F.normalize(mean, dim=-1))
    return torch.stack(features)


def class_logits(
    features: Float[Tensor, "height width channels"],
    text: Float[Tensor, "names channels"],
    class_of_name: Sequence[int],
) -> Float[Tensor, "classes height width"]:
    """Compute the cosine of every class in every patch: the largest of its names.

    Args:
        features: Image features of unit length.
        text: Text features of unit length.
        class_of_name: The class that each name belongs to; every class has a name.
    """
    cosines = torch.einsum("hwd,nd->nhw", features, text)
    classes = []
    for index in range(max(class_of_name) + 1):
        of_class = [n for n, owner in enumerate(class_of_name) if owner == index]
        classes.append(cosines[of_class].amax(dim=0))
    return torch.stack(classes)


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along one side of a photo begin."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def _embed(
    vision: Any, pixels: Float[Tensor, "batch height width 3"]
) -> tuple[Float[Tensor, "batch tokens channels"], tuple[int, int]]:
    """Tokens with their positions, class token first, and the grid of patches."""
    mean, std = pixels.new_tensor(_MEAN), pixels.new_tensor(_STD)
    normalised = ((pixels - mean) / std).permute(0, 3, 1, 2)
    weight = vision.embeddings.patch_embedding.weight
    patches = vision.embeddings.patch_embedding(normalised.to(weight.dtype))
    height, width = patches.shape[2:]
    tokens = patches.flatten(2).transpose(1, 2)
    first = vision.embeddings.class_embedding.expand(len(tokens), 1, -1)
    positions = _positions(vision.embeddings.position_embedding.weight, height, width)
    return torch.cat([first, tokens], dim=1) + positions, (height, width)


def _positions(table: Tensor, height: int, width: int) -> Tensor:
    """The position embedding of a grid, sampled bicubically from the trained one.

    The scale has an extra tenth of a patch, as in DINO and in published code of dense
    CLIP. It prevents a rounding error in floor(), and shifts the sampling points.
    """
    side = int((len(table) - 1) ** 0.5)
    if (height, width) == (side, side):
        return table
    trained = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    sampled = F.interpolate(
        trained,
        scale_factor=((height + 0.1) / side, (width + 0.1) / side),
        mode="bicubic",
        align_corners=False,
    )
    return torch.cat([table[:1], sampled[0].flatten(1).T])
