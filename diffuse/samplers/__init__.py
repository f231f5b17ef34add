"""Samplers: generators that walk from noise to data, one level at a time.

A sampler takes (denoise, x, sigmas, randn) and its own options. `x` is x0 + sigma eps, [b c h w],
at level sigmas[0]; `sigmas` [n + 1] falls to 0; `randn()` is fresh noise in the shape of x. Each
step yields (x, denoised): the state it reached and the estimate of x0 it used.

A multistep sampler also takes a `history` of (sigma, x, denoised), the newest last: the levels that
somebody else has walked before x. `ddim_predicted` takes `level_of`, which sees the level of x.
"""

from collections.abc import Callable, Iterator

from torch import Tensor

from diffuse.samplers.ancestral import ddim, ddpm_large, langevin
from diffuse.samplers.exponential import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, unipc
from diffuse.samplers.multistep import deis, ipndm, lms
from diffuse.samplers.predicted import ddim_predicted
from diffuse.samplers.runge_kutta import heun, rk45

Step = tuple[Tensor, Tensor]
Sampler = Callable[..., Iterator[Step]]  # its options are bound already

__all__ = [
    "Sampler", "Step", "ddim", "ddim_predicted", "ddpm_large", "deis", "dpmpp_2m", "dpmpp_2m_sde",
    "dpmpp_3m", "heun", "ipndm", "langevin", "lms", "rk45", "unipc",
]  # fmt: skip
