"""Small CLIPs with the tensor names of OpenAI and open_clip, and their files."""

import copy
import json
import warnings
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from checkpoints.clip import VOCAB_SIZE, randomise


MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# Heads have 64 channels, as in all of OpenAI's networks.
VISION = {"layers": 3, "width": 128, "patch_size": 16, "image_size": 64}
TEXT = {"layers": 2, "width": 64, "heads": 1, "vocab_size": VOCAB_SIZE}
EMBED_DIM = 24


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, mask: torch.Tensor | None, quick: bool):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_2 = nn.LayerNorm(width)
        layers = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", QuickGELU() if quick else nn.GELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.attn_mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, mask: torch.Tensor | None, quick: bool):
        super().__init__()
        blocks = [Block(width, mask, quick) for _ in range(layers)]
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resblocks(x.transpose(0, 1)).transpose(0, 1)


class Vision(nn.Module):
    def __init__(self, quick: bool):
        super().__init__()
        width, patch = VISION["width"], VISION["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        tokens = (VISION["image_size"] // patch) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, VISION["layers"], None, quick)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, EMBED_DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        first = self.class_embedding + torch.zeros_like(x[:, :1])
        x = torch.cat([first, x], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 1:]) @ self.proj


class OpenAiClip(nn.Module):
    """The network; ``quick`` and the two numbers of pixels are not in its tensors."""

    def __init__(self, *, seed: int, quick: bool = True):
        super().__init__()
        mask = torch.full((77, 77), -torch.inf).triu(1)
        width = TEXT["width"]
        self.visual = Vision(quick)
        self.transformer = Transformer(width, TEXT["layers"], mask, quick)
        self.token_embedding = nn.Embedding(VOCAB_SIZE, width)
        self.positional_embedding = nn.Parameter(torch.empty(77, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, EMBED_DIM))
        self.logit_scale = nn.Parameter(torch.empty(()))
        randomise(self, seed)
        self.eval()

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of every patch, and of prompts of 77 tokens; not of length 1."""
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        pooled = x[torch.arange(len(ids)), ids.argmax(dim=-1)]
        return self.visual(pixels), pooled @ self.text_projection


@torch.no_grad()
def features(
    network: OpenAiClip, photo: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of a photo in [0, 1], channels last, and of prompts."""
    pixels = ((photo - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    dense, text = network(pixels, ids)
    side = VISION["image_size"] // VISION["patch_size"]
    dense = F.normalize(dense, dim=-1).unflatten(1, (side, side))
    return dense, F.normalize(text, dim=-1)


def in_half(network: OpenAiClip) -> OpenAiClip:
    """A copy in the types of OpenAI's archives: norms and embeddings stay float32."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            module.half()
    for value in (network.text_projection, network.visual.proj):
        value.data = value.data.half()
    return network


def with_marks(network: OpenAiClip) -> OpenAiClip:
    """A copy with the three numbers that OpenAI's archives hold as buffers."""
    network = copy.deepcopy(network)
    sizes = {"input_resolution": 64, "context_length": 77, "vocab_size": VOCAB_SIZE}
    for name, size in sizes.items():
        network.register_buffer(name, torch.tensor(size))
    return network


def save_archive(network: OpenAiClip, path: Path) -> None:
    """Write a TorchScript archive of half precision, as OpenAI publishes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # all of TorchScript is old
        torch.jit.script(with_marks(in_half(network))).save(path)


def with_text_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The spelling of open_clip's ``CustomTextCLIP``."""
    own = ("visual.", "logit_scale")
    return {k if k.startswith(own) else f"text.{k}": v for k, v in state.items()}


def write_open_clip_config(folder: Path, *, quick: bool, **changes: object) -> None:
    """Write ``open_clip_config.json``; ``changes`` are fields of ``model_cfg``."""
    model = {"embed_dim": EMBED_DIM, "vision_cfg": VISION, "text_cfg": TEXT} | changes
    if quick:  # open_clip leaves out what is not so
        model["quick_gelu"] = True
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    content = {"model_cfg": model, "preprocess_cfg": preprocess}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(content))
