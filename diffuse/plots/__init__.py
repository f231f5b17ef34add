"""Numbers and images as files: PNG grids of images, figures as PNG and SVG, GIFs."""

from diffuse.plots.images import animation, by_class, grid, picture, save

__all__ = ["animation", "by_class", "grid", "picture", "save"]
