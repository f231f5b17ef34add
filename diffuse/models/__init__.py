"""Backbones F(x, c_noise, label): they know nothing of diffusion."""

from diffuse.models.unet import UNet

__all__ = ["UNet"]
