"""The three lines of docs/how-to/pytorch.md, in a module of the same shape as NACLIP.

That model is sinahmr/NACLIP (``naclip.py``): a CLIP of OpenAI's layout that runs the
weights of its last attention itself, ``forward_feature`` with ``logit_size``, and
``predict``, which turns scores at the size of the photo into labels.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dslo_jax import segment_logits
from torch_bridge import DSLOHead


PATCH = 8
MEAN, STD = 0.45, 0.27


class Block(nn.Module):
    """A block of CLIP, with the tokens on the first axis."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)

    def forward(self, x):
        normed = self.ln_1(x)
        return x + self.attn(normed, normed, normed, need_weights=False)[0]


class Visual(nn.Module):
    """A vision transformer whose last block never calls its attention."""

    def __init__(self, width=16, depth=3):
        super().__init__()
        self.patch_size = PATCH
        self.conv1 = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.transformer = nn.Module()
        blocks = [Block(width, heads=4) for _ in range(depth)]
        self.transformer.resblocks = nn.Sequential(*blocks)

    def forward(self, image):
        x = self.conv1(image).flatten(2).permute(2, 0, 1)
        first = self.class_embedding.expand(1, x.shape[1], -1)
        x = torch.cat([first, x])
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            x = block(x)
        weight, bias = last.attn.in_proj_weight, last.attn.in_proj_bias
        value = nn.functional.linear(x, weight, bias).chunk(3, dim=-1)[2]
        return last.attn.out_proj(value).permute(1, 0, 2)


class Segmentor(nn.Module):
    """The parts of the model class that an evaluation loop touches."""

    def __init__(self, num_queries=5):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Module()
        self.net.visual = Visual()
        self.query_features = torch.randn(num_queries, 16)
        self.query_idx = torch.tensor([0, 1, 1, 2, 2])  # names to classes
        self.logit_scale, self.prob_thd = 40, 0.3
        self.head = DSLOHead(prefix_tokens=1).watch(
            self.net.visual, "transformer.resblocks.1.attn"
        )

    def forward_feature(self, image, logit_size=None):
        features = self.net.visual(image)[:, 1:]
        features = features / features.norm(dim=-1, keepdim=True)
        logits = (features @ self.query_features.T).permute(0, 2, 1)
        grid = [side // PATCH for side in image.shape[-2:]]
        return nn.functional.interpolate(
            logits.unflatten(2, grid), logit_size or image.shape[-2:], mode="bilinear"
        )

    def predict(self, inputs, data_samples):
        batch_img_metas = [sample.metainfo for sample in data_samples]
        seg_logits = self.forward_feature(inputs, batch_img_metas[0]["ori_shape"])
        # These two lines, and ``self.head`` above, are what the page adds.
        logits = self.forward_feature(inputs, [s // PATCH for s in inputs.shape[-2:]])
        photos = [meta["img_path"] for meta in batch_img_metas]
        seg_logits = self.head(logits, None, photos).one_hot()
        return self.postprocess_result(seg_logits, data_samples)

    def postprocess_result(self, seg_logits, data_samples):
        for scores, sample in zip(seg_logits, data_samples, strict=True):
            of_names = (scores * self.logit_scale).softmax(0)
            of_classes = torch.stack(
                [of_names[self.query_idx == c].amax(0) for c in range(3)]
            )
            best = of_classes.argmax(0)
            best[of_classes.amax(0) < self.prob_thd] = 0
            sample.pred_sem_seg = best
        return data_samples


@pytest.fixture
def path(tmp_path):
    blocks = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    photo = Image.fromarray(blocks).resize((70, 50), Image.Resampling.NEAREST)
    photo.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_three_lines_in_an_evaluation_loop(path):
    model = Segmentor().eval()
    photo = np.asarray(Image.open(path))
    pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
    inputs = nn.functional.interpolate((pixels - MEAN) / STD, (40, 56), mode="bilinear")
    sample = SimpleNamespace(metainfo={"img_path": path, "ori_shape": (50, 70)})
    with torch.inference_mode():
        (found,) = model.predict(inputs, [sample])
        x = model.net.visual.conv1(inputs).flatten(2).permute(2, 0, 1)
        x = torch.cat([model.net.visual.class_embedding.expand(1, 1, -1), x])
        first, second, _ = model.net.visual.transformer.resblocks
        normed = second.ln_1(first(x))
        attention = second.attn(normed, normed, normed)[1][:, 1:, 1:]
        attention = attention / attention.sum(dim=-1, keepdim=True)
        logits = model.forward_feature(inputs, (5, 7))
    expected = segment_logits(logits[0].numpy(), attention[0].numpy(), photo)
    classes = model.query_idx.numpy()[expected.labels]
    assert found.pred_sem_seg.shape == (50, 70)
    assert len(np.unique(classes)) > 1
    np.testing.assert_array_equal(found.pred_sem_seg.numpy(), classes)
