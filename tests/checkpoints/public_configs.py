"""Configurations of public repositories, and what they mean.

They are shortened to the fields that matter or that could be misread. The files of
LAION and of DINO could not be downloaded here; their contents are assumptions.
"""

from dslo_jax.models.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vit_config import VitConfig


_TEXT = {"model_type": "clip_text_model", "bos_token_id": 0, "pad_token_id": 1}
_TEXT |= {"dropout": 0.0, "attention_dropout": 0.0, "hidden_act": "quick_gelu"}
_TEXT |= {"layer_norm_eps": 1e-05, "max_position_embeddings": 77, "vocab_size": 49408}
_TEXT |= {"torch_dtype": None, "prefix": None, "pruned_heads": {}, "top_p": 1.0}
VISION = {"model_type": "clip_vision_model", "bos_token_id": None}
VISION |= {"eos_token_id": None, "hidden_act": "quick_gelu", "image_size": 224}
VISION |= {"dropout": 0.0, "attention_dropout": 0.0, "layer_norm_eps": 1e-05}


def sizes(width, depth, heads):
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
    }


CLIP = {
    # openai/clip-vit-base-patch16
    "openai-b16": {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": 2.6592,
        "projection_dim": 512,
        "torch_dtype": "float32",
        "text_config": _TEXT
        | sizes(512, 12, 8)
        | {"eos_token_id": 2, "projection_dim": 512},
        "text_config_dict": None,
        "vision_config": VISION
        | sizes(768, 12, 12)
        | {"patch_size": 16, "projection_dim": 512},
        "vision_config_dict": {"patch_size": 16},
    },
    # openai/clip-vit-large-patch14: sizes in both spellings, the token in one.
    "openai-l14": {
        "model_type": "clip",
        "projection_dim": 768,
        "text_config": _TEXT | sizes(768, 12, 12) | {"eos_token_id": 2},
        "text_config_dict": sizes(768, 12, 12) | {"projection_dim": 768},
        "vision_config": VISION | sizes(1024, 24, 16) | {"patch_size": 14},
        "vision_config_dict": sizes(1024, 24, 16)
        | {"patch_size": 14, "projection_dim": 768},
    },
    # The same, saved again by transformers 5.
    "openai-l14-new": {
        "architectures": ["CLIPModel"],
        "dtype": "float32",
        "model_type": "clip",
        "projection_dim": 768,
        "text_config": _TEXT
        | sizes(768, 12, 12)
        | {"bos_token_id": 49406, "eos_token_id": 49407, "projection_dim": 768},
        "vision_config": VISION
        | sizes(1024, 24, 16)
        | {"patch_size": 14, "num_channels": 3, "projection_dim": 768},
    },
    # laion/CLIP-ViT-B-16-laion2B-s34B-b88K
    "laion-b16": {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 512,
        "text_config": _TEXT
        | sizes(512, 12, 8)
        | {"hidden_act": "gelu", "eos_token_id": 2, "projection_dim": 512},
        "vision_config": VISION
        | sizes(768, 12, 12)
        | {"hidden_act": "gelu", "patch_size": 16, "projection_dim": 512},
    },
}
L14_TEXT = ClipTextConfig(49408, 768, 3072, 12, 12, 77, "quick_gelu", 1e-5, 49407)
L14_VISION = ClipVisionConfig(1024, 4096, 24, 16, 3, 224, 14, "quick_gelu", 1e-5)
CLIP_MEANING = {
    "openai-b16": ClipConfig(
        ClipTextConfig(49408, 512, 2048, 12, 8, 77, "quick_gelu", 1e-5, 2),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 16, "quick_gelu", 1e-5),
        512,
    ),
    "openai-l14": ClipConfig(L14_TEXT, L14_VISION, 768),
    "openai-l14-new": ClipConfig(L14_TEXT, L14_VISION, 768),
    "laion-b16": ClipConfig(
        ClipTextConfig(49408, 512, 2048, 12, 8, 77, "gelu", 1e-5, 2),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 16, "gelu", 1e-5),
        512,
    ),
}
TEXT = {
    # text_encoder of runwayml/stable-diffusion-v1-5
    "sd1": {"architectures": ["CLIPTextModel"], "torch_dtype": "float32"}
    | _TEXT
    | sizes(768, 12, 12)
    | {"eos_token_id": 2, "projection_dim": 768},
    # text_encoder of stabilityai/stable-diffusion-2-1: a layer less than its CLIP has
    "sd2": {"architectures": ["CLIPTextModel"], "projection_dim": 512}
    | _TEXT
    | sizes(1024, 23, 16)
    | {"hidden_act": "gelu", "eos_token_id": 2},
}
TEXT_MEANING = {
    "sd1": ClipTextConfig(49408, 768, 3072, 12, 12, 77, "quick_gelu", 1e-5, 2),
    "sd2": ClipTextConfig(49408, 1024, 4096, 23, 16, 77, "gelu", 1e-5, 2),
}
_SD = {
    "act_fn": "silu",
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "_class_name": "UNet2DConditionModel",
}
# What a newer diffusers adds when it saves any UNet again.
_NEWER = dict.fromkeys(
    (
        *("addition_embed_type", "addition_time_embed_dim", "class_embed_type"),
        *("cross_attention_norm", "encoder_hid_dim", "encoder_hid_dim_type"),
        *("mid_block_only_cross_attention", "num_attention_heads", "num_class_embeds"),
        *("projection_class_embeddings_input_dim", "time_cond_proj_dim"),
        *("reverse_transformer_layers_per_block", "time_embedding_act_fn"),
        *("time_embedding_dim", "timestep_post_act", "upcast_attention"),
    )
)
_NEWER |= {
    "addition_embed_type_num_heads": 64,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "dropout": 0.0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
    "transformer_layers_per_block": 1,
}
UNET = {
    # runwayml/stable-diffusion-v1-5
    "sd1": _SD | {"attention_head_dim": 8, "cross_attention_dim": 768},
    "sd1-new": _SD
    | _NEWER
    | {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64},
    # stabilityai/stable-diffusion-2-1
    "sd2": _SD
    | {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "dual_cross_attention": False,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "sample_size": 96,
        "upcast_attention": True,
        "use_linear_projection": True,
    },
}
SD1_UNET = UNetConfig(cross_attention_dim=768)
UNET_MEANING = {
    "sd1": SD1_UNET,
    "sd1-new": SD1_UNET,
    "sd2": UNetConfig(heads=(5, 10, 20, 20), cross_attention_dim=1024),
}
VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_DINOV2 = {
    "hidden_act": "gelu",
    "hidden_size": 768,
    "image_size": 518,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
VIT = {
    # facebook/dino-vitb8
    "dino": sizes(768, 12, 12)
    | {
        "architectures": ["ViTModel"],
        "hidden_act": "gelu",
        "image_size": 224,
        "layer_norm_eps": 1e-12,
        "model_type": "vit",
        "num_channels": 3,
        "patch_size": 8,
        "qkv_bias": True,
    },
    # facebook/dinov2-base
    "dinov2": _DINOV2 | {"model_type": "dinov2", "architectures": ["Dinov2Model"]},
    # facebook/dinov2-with-registers-base
    "registers": _DINOV2
    | {
        "interpolate_antialias": True,
        "interpolate_offset": 0.0,
        "model_type": "dinov2_with_registers",
        "num_register_tokens": 4,
        "out_indices": [12],
    },
    # facebook/dinov2-giant
    "giant": _DINOV2
    | {
        "architectures": ["Dinov2Model"],
        "hidden_size": 1536,
        "model_type": "dinov2",
        "num_attention_heads": 24,
        "num_hidden_layers": 40,
        "use_swiglu_ffn": True,
    },
}
_V2 = (768, 3072, 12, 12, 3, 518, 14, "gelu", 1e-6)
VIT_MEANING = {
    "dino": VitConfig(768, 3072, 12, 12, 3, 224, 8, "gelu", 1e-12),
    "dinov2": VitConfig(*_V2, layer_scale=True),
    "registers": VitConfig(
        *_V2, layer_scale=True, num_register_tokens=4, antialias=True
    ),
    "giant": VitConfig(*(1536, 4096, 40, 24, *_V2[4:]), layer_scale=True, swiglu=True),
}


def open_clip(embed, vision, text, **more):
    """A configuration of open_clip: layers, width, patch and more; layers to heads."""
    layers, width, patch, others = vision
    both = {"image_size": 224, "layers": layers, "width": width, "patch_size": patch}
    own = {"width": text[1], "heads": text[2], "layers": text[0]}
    own |= {"context_length": 77, "vocab_size": 49408}
    return {"embed_dim": embed, "vision_cfg": both | others, "text_cfg": own, **more}


H14 = {"head_width": 80}
BIG_G = {"head_width": 104, "mlp_ratio": 4.9231}
OPEN_CLIP = {
    # ViT-B-32, of LAION and DataComp
    "b32": (
        open_clip(512, (12, 768, 32, {}), (12, 512, 8)),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 32, "gelu"),
    ),
    # ViT-B-16-quickgelu, of MetaCLIP and DFN
    "b16-quick": (
        open_clip(512, (12, 768, 16, {}), (12, 512, 8), quick_gelu=True),
        ClipVisionConfig(768, 3072, 12, 12, 3, 224, 16, "quick_gelu"),
    ),
    # ViT-H-14, of LAION
    "h14": (
        open_clip(1024, (32, 1280, 14, H14), (24, 1024, 16)),
        ClipVisionConfig(1280, 5120, 32, 16, 3, 224, 14, "gelu"),
    ),
    # ViT-H-14-378-quickgelu, of DFN
    "h14-378": (
        open_clip(
            1024,
            (32, 1280, 14, H14 | {"image_size": 378}),
            (24, 1024, 16),
            quick_gelu=True,
        ),
        ClipVisionConfig(1280, 5120, 32, 16, 3, 378, 14, "quick_gelu"),
    ),
    # ViT-bigG-14, of LAION
    "big-g": (
        open_clip(1280, (48, 1664, 14, BIG_G), (32, 1280, 20)),
        ClipVisionConfig(1664, 8192, 48, 16, 3, 224, 14, "gelu"),
    ),
}
