"""How the bundled checkpoint is trained: captions for CLIP, denoising for the UNet."""
