"""What `diffuse eval`, `compare`, `pareto` and `plan` are made of: scoring, and reading scores."""
