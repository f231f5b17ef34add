"""What `diffuse train` is made of: from a config to all that it needs, and the loop."""
