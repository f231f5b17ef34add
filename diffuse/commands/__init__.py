"""The commands, one short file each. Only this table is imported to print `diffuse --help`."""

VERBS = {
    "train": "train a diffusion model",
    "sample": "draw images from a training run",
    "eval": "FID and KID of a training run, beside real images",
    "compare": "evaluations side by side: more than chance?",
    "pareto": "samplers at several costs: FID against calls and seconds",
    "plan": "how many images and trainings a difference takes, and how long",
    "encoder": "train the classifier that FID and KID are measured with",
    "noise_level": "train the network that sees how noisy an image is",
    "plot": "pictures: data, schedules, levels, noise, one step, a trajectory",
}
