"""Training of the bundled networks: CLIP with captions, the UNet by denoising."""
