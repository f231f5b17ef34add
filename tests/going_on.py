"""Trainings that stop somewhere, are saved and go on: with which optimizers, and how far."""

from functools import partial

import torch

from diffuse import checkpoints
from diffuse.optimizers import Muon
from diffuse.training import fit

ADAMW = partial(torch.optim.AdamW, lr=1e-2, eps=1e-5)
FUSED = partial(ADAMW, fused=True)  # what a GPU gets; it can be had on a CPU, too
MUON = partial(
    Muon, lr=0.02, momentum=0.95, adam_lr=0.002, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01,
    precision="fp32",
)  # fmt: skip
NET = {"dropout": 0.2, "attention": [1], "init": "torch"}  # with something to be drawn inside


def go_on(training, images, law, recipe, until=None):
    peaks = [0.02, 0.002] if isinstance(training.optimizer, Muon) else [1e-2]
    for step in fit(training, images, law, recipe, peaks):
        yield step
        if step.number == until:
            return


def save(training, folder):
    files, state = training.tensors()
    return checkpoints.save(folder, training.step, files, state)
