"""The networks: Flax NNX modules that load Hugging Face checkpoints without torch."""

from dslo_jax.models.clip import Clip as Clip, load_clip as load_clip
from dslo_jax.models.clip_config import (
    ClipConfig as ClipConfig,
    ClipTextConfig as ClipTextConfig,
    ClipVisionConfig as ClipVisionConfig,
)
from dslo_jax.models.clip_text import (
    TextModel as TextModel,
    load_text_encoder as load_text_encoder,
)
from dslo_jax.models.clip_vision import (
    VisionModel as VisionModel,
    load_vision as load_vision,
)
from dslo_jax.models.unet import UNet as UNet, load_unet as load_unet
from dslo_jax.models.unet_config import UNetConfig as UNetConfig
from dslo_jax.models.vae import VAE as VAE, VAEConfig as VAEConfig, load_vae as load_vae
from dslo_jax.models.vit import Vit as Vit, load_vit as load_vit
from dslo_jax.models.vit_config import VitConfig as VitConfig
