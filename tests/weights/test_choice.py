"""The choice of files in a folder, and the source of a configuration."""

import json

import numpy as np
import pytest
import torch
from checkpoints.clip import VOCAB_SIZE
from checkpoints.openai_clip import (
    OpenAiClip,
    save_archive,
    with_marks,
    write_open_clip_config,
)
from safetensors.numpy import save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.models.clip_config import ClipConfig
from dslo_jax.weights import (
    choose_files,
    config_source,
    open_weights,
    read_config,
    side_folder,
)
from dslo_jax.weights.open_clip_config import translate_config


# In the order of preference.
FILES = (
    *("model.safetensors", "model.fp16.safetensors", "model.bf16.safetensors"),
    *(
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    ),
    "open_clip_model.safetensors",
    *("flax_model.msgpack", "diffusion_flax_model.msgpack"),
    *("pytorch_model.bin", "pytorch_model.fp16.bin", "diffusion_pytorch_model.bin"),
    *("open_clip_pytorch_model.bin", "ViT-B-16.pt"),
)
# What lies beside weights and is none.
OTHERS = (
    *("config.json", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt"),
    *("training_args.bin", "rng_state.pth", "random_states_0.pkl", "tf_model.h5"),
    *("model.non_ema.safetensors", "diffusion_pytorch_model.non_ema.safetensors"),
    *("model.onnx", "model.safetensors.md", "adapter_model.safetensors"),
    *("model-00001-of-00002.safetensors", "pytorch_model.bin.index.json.old"),
)


@pytest.mark.parametrize("first", range(len(FILES)))
def test_the_best_file_is_chosen(first):
    for names in (FILES[first:], FILES[first:][::-1], (*FILES[first:], *OTHERS)):
        assert choose_files(iter(names)) == (FILES[first],)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (FILES[:3], "model.fp16.safetensors"),
        (("model.safetensors", "model.bf16.safetensors"), "model.bf16.safetensors"),
        (("model.safetensors", "pytorch_model.fp16.bin"), "model.safetensors"),
        (("pytorch_model.bin", "pytorch_model.fp16.bin"), "pytorch_model.fp16.bin"),
        (("pytorch_model.bin", "a.pt"), "pytorch_model.bin"),
    ],
)
def test_half_is_preferred_within_a_format(names, chosen):
    assert choose_files(names, half=True) == (chosen,)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("a.npz", "config.json"), ("a.npz",)),
        (("a.npz", "b.pt"), ("b.pt",)),
        (("a.npz", "model.safetensors"), ("model.safetensors",)),
    ],
)
def test_a_lone_npz_comes_last(names, chosen):
    assert choose_files(names) == chosen


@pytest.mark.parametrize(
    "names",
    [(), OTHERS, ("a.pt", "b.pt"), ("a.npz", "b.npz"), ("a.pth", "b.ckpt")],
)
def test_nothing_is_chosen_where_nothing_is_clear(names):
    assert choose_files(names) == ()


@pytest.mark.parametrize(
    ("index", "shard"),
    [
        ("model.safetensors.index.json", "model-0000{}-of-00002.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model-0000{}-of-00002.bin"),
        ("model.safetensors.index.fp16.json", "model.fp16-0000{}-of-00002.safetensors"),
        ("model.safetensors.fp16.index.json", "model-0000{}-of-00002.fp16.safetensors"),
        (
            "open_clip_pytorch_model.bin.index.json",
            "open_clip_pytorch_model-0000{}-of-00002.bin",
        ),
    ],
)
def test_shards_come_with_their_index(index, shard):
    files = (index, shard.format(1), shard.format(2))
    strange = ("model-00001-of-2.safetensors", "xmodel-00001-of-00002.safetensors")
    assert choose_files((*reversed(files), *OTHERS[:-2], *strange)) == files
    assert choose_files((index, "model.safetensors")) == ("model.safetensors",)
    assert choose_files((index,)) == (index,)
    assert choose_files(files[1:]) == ()  # without an index nobody knows what is whole


# ---- configurations ------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    return OpenAiClip(seed=0)


def test_openai_describes_itself(tmp_path, network):
    archive, state = tmp_path / "ViT-B-16.pt", tmp_path / "state.pt"
    save_archive(network, archive)
    torch.save(with_marks(network).state_dict(), state)
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')  # of another
    config = read_config(archive)
    assert config == read_config(state)
    assert config_source(archive) == archive
    assert side_folder(archive) is None
    assert side_folder(state) is None
    assert side_folder(tmp_path) == tmp_path
    own = ClipConfig.from_dict(config)
    assert (own.projection_dim, own.text.vocab_size) == (24, VOCAB_SIZE)
    assert (own.vision.image_size, own.vision.patch_size) == (64, 16)
    assert (own.vision.num_hidden_layers, own.text.num_hidden_layers) == (3, 2)
    assert (own.vision.num_attention_heads, own.text.num_attention_heads) == (2, 1)
    assert own.vision.hidden_act == own.text.hidden_act == "quick_gelu"


def test_a_folder_with_nothing_but_openai_is_described(tmp_path, network):
    save_archive(network, tmp_path / "ViT-B-16.pt")
    assert read_config(tmp_path) == read_config(tmp_path / "ViT-B-16.pt")
    assert config_source(tmp_path) == tmp_path


def test_a_resnet_is_refused(tmp_path, network):
    state = with_marks(network).state_dict()
    state["visual.layer1.0.conv1.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "RN50.pt")
    with pytest.raises(CheckpointError, match=r"W06.*RN50.pt is a ResNet.*ViT-B-16"):
        read_config(tmp_path / "RN50.pt")


@pytest.mark.parametrize("key", ["visual.conv1.weight", "ln_final.weight", "visual"])
def test_openai_without_all_tensors_is_told(tmp_path, network, key):
    marks = with_marks(network).state_dict()
    state = {k: v for k, v in marks.items() if not k.startswith(key)}
    torch.save(state, tmp_path / "a.pt")
    if key == "ln_final.weight":  # needed by the network, not by its description
        assert read_config(tmp_path / "a.pt")
    else:
        with pytest.raises(CheckpointError, match=r"W04.*lacks tensors of CLIP"):
            read_config(tmp_path / "a.pt")


def test_open_clip_without_its_configuration_is_told(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "vit_b_16-laion400m.pt")
    with pytest.raises(CheckpointError, match=r"W08.*put the open_clip_config.json"):
        read_config(tmp_path / "vit_b_16-laion400m.pt")
    write_open_clip_config(tmp_path, quick=False)
    config = read_config(tmp_path / "vit_b_16-laion400m.pt")
    assert config["vision_config"]["hidden_act"] == "gelu"
    source = config_source(tmp_path / "vit_b_16-laion400m.pt")
    assert source == tmp_path / "open_clip_config.json"
    assert side_folder(tmp_path / "vit_b_16-laion400m.pt") == tmp_path


def test_the_configuration_is_that_of_the_chosen_file(tmp_path):
    write_open_clip_config(tmp_path, quick=True)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    weights = {"visual.proj": np.ones((1, 1), np.float32)}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    assert read_config(tmp_path)["projection_dim"] == 24
    save_file({"text_projection.weight": np.ones(1)}, tmp_path / "model.safetensors")
    assert read_config(tmp_path) == {"model_type": "clip"}
    assert config_source(tmp_path) == tmp_path / "config.json"
    assert read_config(tmp_path / "model.safetensors") == {"model_type": "clip"}
    assert read_config(tmp_path / "open_clip_model.safetensors")["projection_dim"] == 24


def test_no_configuration_is_told(tmp_path):
    save_file({"a": np.ones(1)}, tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors", tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=r"W08.*no config.json"):
            read_config(place)


def test_queries_keys_and_values_must_be_three(tmp_path):
    name = "transformer.resblocks.0.attn.in_proj_weight"
    save_file({name: np.ones((4, 2))}, tmp_path / "a.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"W04.*{name}.*cannot be divided by three"
    ):
        open_weights(tmp_path / "a.safetensors")


def test_what_belongs_to_no_clip_is_kept_for_the_network_to_refuse(tmp_path):
    names = ("visual.trunk.head.weight", "text_decoder.a", "visual.proj.bias")
    save_file({name: np.ones(2) for name in names}, tmp_path / "a.safetensors")
    assert {*open_weights(tmp_path / "a.safetensors")} == {*names}


# ---- open_clip_config.json -----------------------------------------------------------

PUBLIC = {  # as laion/CLIP-ViT-H-14-laion2B-s32B-b79K states it
    "embed_dim": 1024,
    "vision_cfg": {
        **{"image_size": 224, "layers": 32, "width": 1280},
        **{"head_width": 80, "patch_size": 14},
    },
    "text_cfg": {
        **{"context_length": 77, "vocab_size": 49408},
        **{"width": 1024, "heads": 16, "layers": 24},
    },
}


def changed(part: str | None, **fields: object) -> dict:
    model = json.loads(json.dumps(PUBLIC))
    (model if part is None else model[part]).update(fields)
    return model


def test_a_public_configuration_is_translated():
    config = ClipConfig.from_dict(translate_config({"model_cfg": PUBLIC}))
    assert ClipConfig.from_dict(translate_config(PUBLIC)) == config
    assert config.projection_dim == 1024
    vision, text = config.vision, config.text
    assert (vision.hidden_size, vision.intermediate_size) == (1280, 5120)
    assert (vision.num_hidden_layers, vision.num_attention_heads) == (32, 16)
    assert (vision.patch_size, vision.image_size) == (14, 224)
    assert (text.hidden_size, text.intermediate_size) == (1024, 4096)
    assert (text.num_hidden_layers, text.num_attention_heads) == (24, 16)
    assert text.hidden_act == vision.hidden_act == "gelu"
    assert text.layer_norm_eps == 1e-5


def test_defaults_are_those_of_open_clip():
    empty = {"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}, "quick_gelu": True}
    own = ClipConfig.from_dict(translate_config(empty))
    assert (own.vision.patch_size, own.vision.num_attention_heads) == (16, 12)
    assert (own.text.num_attention_heads, own.text.hidden_size) == (8, 512)
    assert own.vision.hidden_act == "quick_gelu"


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        (None, "custom_text", True),
        (None, "init_logit_bias", None),
        (None, "init_logit_scale", 2.6),
        (None, "nonscalar_logit_scale", True),
        ("vision_cfg", "patch_dropout", 0.5),
        ("vision_cfg", "timm_model_name", None),
        ("vision_cfg", "timm_pool", "avg"),
        ("vision_cfg", "pool_type", "tok"),
        ("vision_cfg", "pos_embed_type", "learnable"),
        ("vision_cfg", "attentional_pool", False),
        ("vision_cfg", "image_size", [224, 224]),
        ("vision_cfg", "block_type", None),
        ("text_cfg", "pool_type", "argmax"),
        ("text_cfg", "proj_type", "linear"),
        ("text_cfg", "no_causal_mask", False),
        ("text_cfg", "hf_model_name", ""),
        ("text_cfg", "norm_kwargs", {}),
        ("text_cfg", "act_kwargs", None),
        ("text_cfg", "eos_id", 2),
        ("text_cfg", "an_option_of_tomorrow", False),
    ],
)
def test_what_changes_nothing_is_accepted(part, field, value):
    translated = translate_config(changed(part, **{field: value}))
    assert translated == translate_config(PUBLIC)


@pytest.mark.parametrize(
    ("part", "field", "value", "wanted"),
    [
        (None, "embed_dim", 0, "a positive integer"),
        (None, "multimodal_cfg", {"layers": 12}, "it unset"),
        (None, "init_logit_bias", -10, "it unset (SigLIP is not supported)"),
        (None, "vision_cfg", 5, "an object"),
        ("vision_cfg", "timm_model_name", "convnext_base", "it unset"),
        ("vision_cfg", "layers", [3, 4, 6, 3], "no ResNet"),
        ("vision_cfg", "layers", "12", "a positive integer"),
        ("vision_cfg", "head_width", 81, "a divisor of width 1280"),
        ("vision_cfg", "mlp_ratio", -1, "a positive number"),
        ("vision_cfg", "image_size", [224, 448], "a positive integer"),
        ("vision_cfg", "attentional_pool", True, "it unset"),
        ("vision_cfg", "ls_init_value", 1e-4, "it unset"),
        ("vision_cfg", "no_ln_pre", True, "it unset"),
        ("vision_cfg", "pool_type", "avg", "'tok'"),
        ("vision_cfg", "pos_embed_type", "sin_cos_2d", "'learnable'"),
        ("vision_cfg", "final_ln_after_pool", True, "it unset"),
        ("vision_cfg", "norm_kwargs", {"elementwise_affine": False}, "nothing but eps"),
        ("text_cfg", "hf_model_name", "roberta-base", "it unset"),
        ("text_cfg", "hf_tokenizer_name", "bert-base-uncased", "it unset"),
        ("text_cfg", "pool_type", "last", "'argmax'"),
        ("text_cfg", "embed_cls", True, "it unset"),
        ("text_cfg", "no_causal_mask", True, "it unset"),
        ("text_cfg", "proj_bias", True, "it unset"),
        ("text_cfg", "proj_type", "none", "'linear'"),
        ("text_cfg", "act_kwargs", {"approximate": "sigmoid"}, "it unset"),
        ("text_cfg", "block_type", "custom", "'default'"),
        ("text_cfg", "qk_norm", True, "it unset"),
        ("text_cfg", "an_option_of_tomorrow", 3, "it unset"),
    ],
)
def test_other_networks_are_refused_by_field(part, field, value, wanted):
    with pytest.raises(CheckpointError) as caught:
        translate_config(changed(part, **{field: value}), "folder/its.json")
    assert caught.value.code == "W06"
    name = field if part is None else f"{part}.{field}"
    assert f"folder/its.json has {name} = " in str(caught.value)
    assert wanted in str(caught.value).partition("this network wants ")[2]


def test_norms_and_activations_are_translated():
    model = changed("text_cfg", norm_kwargs={"eps": 1e-6})
    assert translate_config(model)["text_config"]["layer_norm_eps"] == 1e-6
    tanh = {"act_kwargs": {"approximate": "tanh"}}
    model = changed("vision_cfg", **tanh)
    assert translate_config(model)["vision_config"]["hidden_act"] == "gelu_pytorch_tanh"
    with pytest.raises(CheckpointError, match=r"W06.*act_kwargs"):
        translate_config(model | {"quick_gelu": True})
