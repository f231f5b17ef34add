"""How far deterministic samplers end from the solution of their ODE, on each grid, in few calls.

    python scripts/bench_grids.py --run quickstart --nfe 10 20

The solution is Heun's of 601 calls on the Karras grid, from the same noise; the number is the root
mean square of the difference, in the pixels' range. A FID needs thousands of images to tell what
this tells with 64, but says whether the difference matters: `diffuse eval --multirun sampler=...`.
"""

import argparse

import torch
from bench_quality import final_config
from torch import Tensor

from diffuse.commands import restoring
from diffuse.console import print_columns
from diffuse.sampling import classes, walk

SAMPLERS = ("ddim", "heun", "lms", "ipndm", "deis", "dpmpp_2m", "dpmpp_3m", "unipc")
GRIDS = ("uniform", "karras", "logsnr")


def ends(words: list[str], n: int) -> Tensor:
    """Where the walks of n images end [n c h w], for these words of `diffuse sample`."""
    cfg = final_config("sample", [*words, f"batch={n}", "guidance=1"])
    trained, plan = restoring.restore(cfg)
    labels = classes(trained.spec, range(n))
    state = torch.empty(0)
    for state, _, _ in walk(trained.denoiser, trained.spec, plan, range(n), labels):  # noqa: B007
        pass
    return state


def distance(a: Tensor, b: Tensor) -> str:
    return f"{(a - b).square().mean().sqrt().item():.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", default="quickstart")
    parser.add_argument("--nfe", type=int, nargs="+", default=[10, 20])
    parser.add_argument("-n", type=int, default=64, help="images")
    args = parser.parse_args()
    run = f"run={args.run}"
    exact = ends([run, "sampler=heun", "steps=301"], args.n)
    other = ends([run, "sampler=dpmpp_2m", "steps=600"], args.n)
    print(f"two solutions are {distance(exact, other)} apart")
    for nfe in args.nfe:
        rows = {}
        for name in SAMPLERS:
            calls = nfe - (name == "heun" and nfe % 2 == 0)
            words = [run, f"sampler={name}", f"nfe={calls}"]
            rows[name] = {
                grid: distance(ends([*words, f"grid={grid}"], args.n), exact) for grid in GRIDS
            }
        print_columns(f"{nfe} calls (heun: one fewer if even)", rows)


if __name__ == "__main__":
    main()
