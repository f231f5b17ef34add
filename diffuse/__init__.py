"""diffuse: an experiment runner for diffusion models on small images."""

__version__ = "0.1.0"
