"""Attention of PyTorch modules that a ``DSLOHead`` watches."""

import copy

import numpy as np
import pytest
import torch

from dslo_jax.errors import DsloError
from torch_bridge import BridgeError, DSLOHead


KINDS = ["attn", "proj", "diffusers", "older", "torch", "first"]


@pytest.fixture
def tokens():
    """A class token and 4 x 6 patches."""
    return torch.randn(2, 25, 16, generator=torch.Generator().manual_seed(4))


class Blocks(torch.nn.Module):
    """One attention of each kind, on the same tokens."""

    num_heads = 4

    def __init__(self, channels=16):
        super().__init__()
        torch.manual_seed(0)
        self.attn = torch.nn.Module()
        self.attn.num_heads = self.num_heads
        self.attn.qkv = torch.nn.Linear(channels, 3 * channels)
        for name, parts in (
            ("proj", ("q_proj", "k_proj")),
            ("diffusers", ("to_q", "to_k")),
            ("older", ("query", "key")),
        ):
            block = torch.nn.Module()
            block.heads = self.num_heads
            for part in parts:
                setattr(block, part, torch.nn.Linear(channels, channels))
            setattr(self, name, block)
        self.torch = torch.nn.MultiheadAttention(channels, self.num_heads)
        self.first = torch.nn.MultiheadAttention(
            channels, self.num_heads, batch_first=True, bias=False
        )
        query, key, _ = self.attn.qkv.weight.data.chunk(3)
        query_bias, key_bias, _ = self.attn.qkv.bias.data.chunk(3)
        self.first.in_proj_weight.data.copy_(self.attn.qkv.weight.data)
        self.torch.in_proj_weight.data.copy_(self.attn.qkv.weight.data)
        self.torch.in_proj_bias.data.copy_(self.attn.qkv.bias.data)
        for block, names in (
            (self.proj, ("q_proj", "k_proj")),
            (self.diffusers, ("to_q", "to_k")),
            (self.older, ("query", "key")),
        ):
            for name, weight, bias in zip(
                names, (query, key), (query_bias, key_bias), strict=True
            ):
                getattr(block, name).weight.data.copy_(weight)
                getattr(block, name).bias.data.copy_(bias)

    @torch.no_grad()
    def forward(self, tokens):
        query, _, _ = self.attn.qkv(tokens).chunk(3, dim=-1)
        query *= 0.5  # in place, as some models scale their queries
        for block in (self.proj, self.diffusers, self.older):
            for part in block.children():
                part(tokens).zero_()
        turned = tokens.transpose(0, 1)
        self.torch(turned, turned, turned, need_weights=False)
        return self.first(tokens, key=tokens, value=tokens)[0]


def plain_attention(model, tokens, *, bias=True):
    """Softmax over all tokens, mean over heads, without the class token."""
    module = model.torch if bias else model.first
    turned = tokens.transpose(0, 1) if bias else tokens
    _, weights = module(turned, turned, turned, average_attn_weights=True)
    patches = weights.detach()[:, 1:, 1:]
    return patches / patches.sum(dim=-1, keepdim=True)


@pytest.mark.parametrize(
    "name", ["attn", "proj", "diffusers", "older", "torch", "first"]
)
def test_every_kind_of_attention_is_watched(name, tokens, logits, image):
    model = Blocks()
    head = DSLOHead(prefix_tokens=1).watch(model, name)
    model(tokens)
    found = head(logits, None, image)
    attention = plain_attention(model, tokens, bias=name != "first")
    expected = DSLOHead()(logits, attention, image)
    np.testing.assert_allclose(found.discrepancy, expected.discrepancy, rtol=1e-4)
    assert (found.labels == expected.labels).float().mean() > 0.999


def test_several_layers_are_averaged(tokens, logits, image):
    model = Blocks()
    head = DSLOHead(prefix_tokens=1).watch(model, "torch", "first")
    model(tokens)
    found = head(logits, None, image)
    # Heads and layers are averaged before the rows are divided by their sum.
    both = 0
    for module, given in ((model.torch, tokens.transpose(0, 1)), (model.first, tokens)):
        both = both + module(given, given, given)[1].detach()[:, 1:, 1:]
    attention = both / both.sum(dim=-1, keepdim=True)
    expected = DSLOHead()(logits, attention, image)
    np.testing.assert_allclose(found.discrepancy, expected.discrepancy, rtol=1e-4)


def test_what_was_collected_is_used_once(tokens, logits, attention, image):
    model = Blocks()
    head = DSLOHead(prefix_tokens=1).watch(model, "attn")
    never = r"B07.*'attn' has not run since the last call"
    for call in (
        lambda: head(logits, None, image),
        lambda: head(logits, attention, image),
        lambda: head(logits, None, image, mode="logits"),
    ):
        with pytest.raises(BridgeError, match=never):
            head(logits, None, image)
        model(tokens)
        call()
    model(tokens[:1])
    with pytest.raises(BridgeError, match=r"B04.*queries .*\(1, 4, 25, 4\)"):
        head(logits, None, image)
    head.unwatch()
    model(tokens)
    with pytest.raises(BridgeError, match=r"B04.*`attention` is None"):
        head(logits, None, image)


def test_a_change_after_the_pass_changes_nothing(tokens, logits, image):
    model = Blocks()
    head = DSLOHead(prefix_tokens=1).watch(model, *KINDS)
    model(tokens)
    expected = head(logits, None, image)
    model(tokens)
    tokens.zero_()
    for parameter in model.parameters():
        parameter.data.zero_()
    found = head(logits, None, image)
    assert torch.equal(found.discrepancy, expected.discrepancy)


def test_modules_that_cannot_be_watched_are_named():
    model = Blocks()
    with pytest.raises(BridgeError, match=r"B07.*'atn' is no module .* 6, .*'attn'"):
        DSLOHead().watch(model, "atn")
    with pytest.raises(BridgeError, match=r"B07.*'attn.qkv' is no attention"):
        DSLOHead().watch(model, "attn.qkv")
    with pytest.raises(BridgeError, match=r"B07.*none here.*queries and keys"):
        DSLOHead().watch(torch.nn.Linear(3, 3), "attn")
    model.attn.q_norm = torch.nn.LayerNorm(4)
    with pytest.raises(BridgeError, match=r"B07.*'attn' is no attention"):
        DSLOHead().watch(model, "attn")
    del model.proj.heads
    with pytest.raises(BridgeError, match=r"B07.*'proj' does not state its heads"):
        DSLOHead().watch(model, "proj")
    DSLOHead().watch(model, "proj", heads=4)


def test_queries_and_keys_of_different_tokens_are_refused(logits, image):
    model = Blocks()
    head = DSLOHead().watch(model, "diffusers")
    model.diffusers.to_q(torch.zeros(2, 24, 16))
    model.diffusers.to_k(torch.zeros(2, 77, 16))  # as cross-attention to a text has
    with pytest.raises(BridgeError, match=r"B07.*\(2, 24, 16\).*\(2, 77, 16\)"):
        head(logits, None, image)


def test_a_model_with_a_head_can_be_copied_and_saved(tokens, logits, image, tmp_path):
    model = Blocks()
    before = list(model.state_dict())
    model.head = DSLOHead(prefix_tokens=1).watch(model, "attn")
    assert list(model.state_dict()) == before
    assert repr(model.head) == "DSLOHead(mode='velocity', watching 'attn')"
    model(tokens)
    expected = model.head(logits, None, image).labels
    torch.save(model, tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt", weights_only=False)
    for other in (copy.deepcopy(model), saved):
        other(tokens)
        assert torch.equal(other.head(logits, None, image).labels, expected)
        with pytest.raises(DsloError, match="B07"):  # its own pass, not that of a copy
            model.head(logits, None, image)
