"""The reference networks against transformers, diffusers and plain loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor

from torch_bridge import reference
from torch_bridge.reference.clip import _positions
from torch_bridge.reference.diffusion import UP_LAYERS


MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def photo(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, 3, generator=generator)


@torch.no_grad()
def test_vanilla_features_are_those_of_transformers(clip):
    pixels = photo(64, 64)
    features = reference.dense_features(clip, pixels, attention="vanilla")
    normalised = torch.as_tensor((pixels.numpy() - MEAN) / STD, dtype=torch.float32)
    hidden = clip.vision_model(normalised.permute(2, 0, 1)[None]).last_hidden_state
    tokens = clip.vision_model.post_layernorm(hidden)[0, 1:]
    wanted = F.normalize(clip.visual_projection(tokens), dim=-1)
    torch.testing.assert_close(features.flatten(0, 1), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("attention", ["kk_mean", "qq_mean", "qk_mean"])
@torch.no_grad()
def test_mean_attention_head_by_head(clip, attention):
    """The recipe in float64 NumPy, one head and one block at a time."""
    pixels = photo(48, 80)
    features = reference.dense_features(clip, pixels, attention=attention)
    assert features.shape == (3, 5, 24)

    vision = clip.vision_model
    inputs = []
    hooks = [
        block.layer_norm1.register_forward_hook(
            lambda *call: inputs.append(call[-1][0])
        )
        for block in vision.encoder.layers
    ]
    reference.dense_features(clip, pixels, attention="vanilla")
    for hook in hooks:
        hook.remove()
    normalised = [tokens.double().numpy() for tokens in inputs]
    assert len(normalised) == len(vision.encoder.layers) == 3

    def project(block, which, tokens):
        linear = getattr(block.self_attn, f"{which}_proj")
        weight, bias = (p.double().numpy() for p in (linear.weight, linear.bias))
        return np.stack(np.split(tokens @ weight.T + bias, 3, axis=1))

    mixed = []
    for head in range(3):
        mean = np.zeros((15, 15))
        for block, tokens in zip(vision.encoder.layers, normalised, strict=True):
            left, right = (project(block, w, tokens)[head] for w in attention[:2])
            odds = np.exp(left @ right.T / 4)
            mean += (odds / odds.sum(axis=1, keepdims=True))[1:, 1:] / 3
        last = vision.encoder.layers[-1]
        mixed.append(mean @ project(last, "v", normalised[-1])[head][1:])
    tokens = torch.as_tensor(np.concatenate(mixed, axis=1), dtype=torch.float32)
    projected = vision.post_layernorm(last.self_attn.out_proj(tokens))
    wanted = F.normalize(clip.visual_projection(projected), dim=-1)
    torch.testing.assert_close(features.flatten(0, 1), wanted, rtol=0, atol=5e-6)


@torch.no_grad()
def test_maskclip_is_a_last_block_whose_mask_leaves_only_the_token_itself(clip):
    pixels, last = photo(48, 80), clip.vision_model.encoder.layers[-1]
    found = reference.dense_features(clip, pixels, attention="maskclip")
    alone = torch.full((16, 16), -torch.inf).fill_diagonal_(0)[None, None]

    def mask(block, arguments, options):
        return arguments, options | {"attention_mask": alone}

    hook = last.register_forward_pre_hook(mask, with_kwargs=True)
    wanted = reference.dense_features(clip, pixels, attention="vanilla")
    hook.remove()
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


def test_partial_patches_are_dropped(clip):
    pixels = photo(79, 70)
    features = reference.dense_features(clip, pixels, attention="kk_mean")
    whole = reference.dense_features(clip, pixels[:64, :64], attention="kk_mean")
    torch.testing.assert_close(features, whole)


def cubic(distance):
    """The kernel of torch's bicubic, a = -0.75."""
    x = abs(distance)
    if x <= 1:
        return (1.25 * x - 2.25) * x * x + 1
    return ((-0.75 * x + 3.75) * x - 6) * x + 3 if x < 2 else 0.0


def test_positions_are_sampled_at_the_inflated_scale():
    side, size = 4, 7
    table = torch.randn(1 + side**2, 2, generator=torch.Generator().manual_seed(1))
    weights = np.zeros((size, side))
    for i in range(size):
        centre = (i + 0.5) * side / (size + 0.1) - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[i, np.clip(tap, 0, side - 1)] += cubic(centre - tap)
    square = table[1:].double().numpy().reshape(side, side, 2)
    wanted = np.einsum("ai,bj,ijc->abc", weights, weights, square)
    sampled = _positions(table, size, size)
    np.testing.assert_allclose(sampled[1:].reshape(7, 7, 2), wanted, atol=2e-6)
    assert torch.equal(sampled[0], table[0])


def test_native_grid_keeps_the_trained_positions():
    table = torch.ones(17, 2)
    assert _positions(table, 4, 4) is table


@torch.no_grad()
def test_text_features_are_the_normalised_mean(clip, tokenizer):
    templates = ("a photo of a {}.", "the {}")
    features = reference.text_features(clip, tokenizer, ["cat", "Red Wall"], templates)
    tokens = tokenizer(["a photo of a cat.", "the cat"], padding=True)
    mean = np.zeros(24)
    for ids in tokens.input_ids:
        text = clip.text_model(torch.tensor([ids])).pooler_output
        sentence = clip.text_projection(text)[0].double().numpy()
        mean += sentence / np.linalg.norm(sentence)
    np.testing.assert_allclose(features[0], mean / np.linalg.norm(mean), atol=2e-6)
    lower = reference.text_features(clip, tokenizer, ["red wall"], templates)
    torch.testing.assert_close(features[1:], lower)


def test_class_logits_take_the_best_synonym():
    torch.manual_seed(0)
    features = F.normalize(torch.randn(2, 3, 4), dim=-1)
    text = F.normalize(torch.randn(3, 4), dim=-1)
    logits = reference.class_logits(features, text, (1, 0, 1))
    cosines = features @ text.T
    torch.testing.assert_close(logits[0], cosines[..., 1])
    best = torch.maximum(cosines[..., 0], cosines[..., 2])
    torch.testing.assert_close(logits[1], best)


class Recorder:
    """The attention probabilities as diffusers' own, unfused arithmetic has them."""

    def __init__(self, unet, names):
        self.seen = {}
        unet.set_attn_processor(AttnProcessor())
        for name in names:
            module = unet.get_submodule(name)
            module.get_attention_scores = self.listen(name, module.get_attention_scores)

    def listen(self, name, scores):
        def record(*args):
            self.seen[name] = scores(*args)
            return self.seen[name]

        return record


@torch.no_grad()
def test_affinity_is_the_weighted_attention_of_diffusers(diffusion):
    pixels = photo(64, 64)
    layers = (
        *UP_LAYERS,
        ("down_blocks.0.attentions.1", 0.3),
    )
    affinity = reference.diffusion_affinity(diffusion, pixels, layers=layers)
    assert affinity.shape == (64, 64)
    torch.testing.assert_close(affinity.sum(dim=1), torch.ones(64))

    ids = diffusion.tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    prompt = diffusion.text_encoder(ids).last_hidden_state
    assert prompt.shape == (1, 77, 32)
    posterior = diffusion.vae.encode(2 * pixels.permute(2, 0, 1)[None] - 1).latent_dist
    latent = posterior.mean * diffusion.vae.config.scaling_factor
    torch.testing.assert_close(reference.encode(diffusion.vae, pixels[None]), latent)
    layers = [(f"{path}.transformer_blocks.0.attn1", w) for path, w in layers]
    recorder = Recorder(diffusion.unet, [name for name, _ in layers])
    diffusion.unet(latent, 0, prompt)
    total = sum(w * recorder.seen[name].mean(dim=0) for name, w in layers)
    wanted = total / total.sum(dim=1, keepdim=True)
    torch.testing.assert_close(affinity, wanted, rtol=1e-5, atol=1e-7)
    assert affinity.std() > 1e-3  # not the uniform matrix that anything would match


def test_temperature_raises_the_rows_to_a_power(diffusion):
    pixels = photo(64, 64)
    plain = reference.diffusion_affinity(diffusion, pixels)
    sharp = reference.diffusion_affinity(diffusion, pixels, temperature=0.5)
    wanted = plain**2 / (plain**2).sum(dim=1, keepdim=True)
    torch.testing.assert_close(sharp, wanted)


def test_timestep_matters_and_the_pass_leaves_no_hook(diffusion):
    pixels = photo(64, 64)
    at_zero = reference.diffusion_affinity(diffusion, pixels)
    later = reference.diffusion_affinity(diffusion, pixels, timestep=500)
    assert (at_zero - later).abs().max() > 1e-5
    module = diffusion.unet.get_submodule(UP_LAYERS[0][0])
    assert not module._forward_pre_hooks
