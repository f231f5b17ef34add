"""The same estimates of x0 and noise as in diffusers give the same walk, state by state."""

import inspect
from functools import partial
from itertools import islice
from pathlib import Path

import diffusers
import pytest
import torch
import yaml

from diffuse import config
from diffuse.denoiser import Denoiser, clipped
from diffuse.grids import karras, uniform
from diffuse.objectives import eps, v
from diffuse.schedules import alpha_bar, linear
from diffuse.weightings import uniform as unweighted

YAMLS = {path.stem: path for path in (Path(__file__).parents[1] / "conf/sampler").glob("*.yaml")}
SHAPE = (3, 1, 8, 8)
TABLE = linear(0.02, 1e-3, 1000, False)  # their float32 is far off at smaller betas
THEIRS = {"beta_start": 1e-3, "beta_end": 0.02, "timestep_spacing": "trailing"}
GRIDS = {
    "uniform": partial(uniform, schedule=TABLE, spacing="trailing"),
    "karras": partial(karras, schedule=TABLE, rho=7.0, sigma_min=None, sigma_max=None),
}
TABLED = ("DDIM", "DDPM")  # they visit the levels of a table only
EXACT, ROUNDED = 1e-9, 2e-6  # some of theirs round the state to float32
END, BEFORE = None, -1  # where two walks part: never, or in the step to sigma = 0

# our yaml, what changes in it; their scheduler, what changes in it; difference allowed; up to where
RULES = [
    ("ddim", {}, "DDIM", {}, EXACT, END),
    ("ddim", {"eta": 0.3}, "DDIM", {"eta": 0.3}, EXACT, END),
    ("ddpm", {}, "DDIM", {"eta": 1.0}, EXACT, END),
    ("ddpm", {}, "DDPM", {"variance_type": "fixed_small"}, EXACT, END),
    # theirs then adds noise to the finished image, unless the last step begins at t = 0
    ("ddpm_large", {}, "DDPM", {"variance_type": "fixed_large"}, EXACT, BEFORE),
    ("euler", {}, "EulerDiscrete", {}, ROUNDED, END),
    ("euler_ancestral", {}, "EulerAncestralDiscrete", {}, ROUNDED, END),
    ("heun", {}, "HeunDiscrete", {}, EXACT, END),
    *[("lms", {"order": n}, "LMSDiscrete", {"order": n}, EXACT, END) for n in (1, 2, 3, 4)],
    ("dpmpp_2m", {}, "DPMSolverMultistep", {"solver_order": 2}, ROUNDED, END),
    ("dpmpp_3m", {}, "DPMSolverMultistep", {"solver_order": 3}, ROUNDED, END),
    ("dpmpp_2m_sde", {}, "DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, ROUNDED, END),
    # log 0 or a division by an infinite h: theirs are not defined in the step to sigma = 0
    ("unipc", {"order": 1}, "UniPCMultistep", {"solver_order": 1}, EXACT, END),
    ("unipc", {"order": 2}, "UniPCMultistep", {"solver_order": 2}, EXACT, BEFORE),
    ("unipc", {"order": 3}, "UniPCMultistep", {"solver_order": 3}, EXACT, BEFORE),
    ("unipc", {"order": 4}, "UniPCMultistep", {"solver_order": 4}, EXACT, BEFORE),
    *[
        ("deis", {"order": n}, "DEISMultistep", {"solver_order": n}, EXACT, BEFORE)
        for n in (1, 2, 3)
    ],
    # theirs extrapolates to sigma = 0 as well; ours is of first order there
    ("ipndm", {"order": 4}, "IPNDM", {}, EXACT, BEFORE),
]
# with trailing steps their Karras levels would end above the table's lowest
KARRAS = {"use_karras_sigmas": True, "timestep_spacing": "linspace"}
# ScoreSdeVe's Langevin steps depend on the rest of the batch; none is adaptive or guesses the level
NOT_THEIRS = {"langevin", "rk45", "ddim_predicted"}


def parameters(name):
    return inspect.signature(getattr(diffusers, f"{name}Scheduler")).parameters


def scheduler(name, **settings):
    """One of their schedulers, and the options of its steps."""
    options = {key: settings.pop(key) for key in ("order", "eta") if key in settings}
    kind, known = getattr(diffusers, f"{name}Scheduler"), parameters(name)
    # they lower the order at the end of short walks, and clip unless told otherwise
    usual = {**THEIRS, "lower_order_final": False, "clip_sample": False}
    settings = {**{k: usual[k] for k in usual.keys() & known.keys()}, **settings}
    if "use_clipped_model_output" in inspect.signature(kind.step).parameters:
        options["use_clipped_model_output"] = settings["clip_sample"]
    return kind(**settings), options


def give_levels(scheduler, sigmas):
    """Our levels, in float64, in place of theirs."""
    if isinstance(scheduler, diffusers.IPNDMScheduler):
        scheduler.alphas = alpha_bar(sigmas).sqrt()
        scheduler.betas = sigmas * scheduler.alphas
    elif scheduler.order == 2:  # Heun's: two calls for each level but the first
        inner = sigmas[1:-1].repeat_interleave(2)
        scheduler.sigmas = torch.cat([sigmas[:1], inner, sigmas[-1:]])
    elif hasattr(scheduler, "sigmas"):
        scheduler.sigmas = sigmas
    else:
        scheduler.alphas_cumprod = alpha_bar(TABLE.table)


def levels_of(scheduler):
    """The level that each of their calls is at, and 0."""
    if isinstance(scheduler, diffusers.IPNDMScheduler):
        return scheduler.betas / scheduler.alphas
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas
    kept = scheduler.alphas_cumprod.double()[scheduler.timesteps]
    return torch.cat([(1 / kept - 1).sqrt(), kept.new_zeros(1)])


def their_states(scheduler, steps, x, answer, sigmas=None, **options):
    """The states of diffusers' loop as x0 + sigma eps: some of theirs are that times a(t).

    `answer` is what a network says to x at a level. `sigmas` are levels instead of their own.
    """
    scheduler.set_timesteps(steps)
    if sigmas is not None:
        give_levels(scheduler, sigmas)
    levels = levels_of(scheduler)
    scale = (1 + levels**2).sqrt() if scheduler.init_noise_sigma == 1 else torch.ones_like(levels)
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = torch.Generator().manual_seed(0)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    x = x / scale[0].to(x.dtype)
    for i, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, t)  # some refuse to go on without
        said = answer(x * scale[i].to(x.dtype), levels[i])
        x = scheduler.step(said, t, x, **options).prev_sample
        if scheduler.order == 1 or i % 2 or i + 1 == len(scheduler.timesteps):
            yield x * scale[i + 1].to(x.dtype)


def our_states(name, denoise, sigmas, x, dtype, **changes):
    """Their generator and ours draw the same numbers in the same order."""
    node = {**yaml.safe_load(YAMLS[name].read_text()), **changes}
    node.pop("defaults", None)
    sampler = config.bind("sampler", node, "denoise", "x", "sigmas", "randn")
    random = torch.Generator().manual_seed(0)
    randn = lambda: torch.randn(SHAPE, generator=random, dtype=dtype).to(x.dtype)  # noqa: E731
    return [state for state, _ in sampler(denoise, x, sigmas, randn)]


def difference(ours, theirs):
    """The largest of any state, next to the largest value in it."""
    assert len(ours) == len(theirs) > 1
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def denoise(x, sigma):
    """E[x0 | x] of two peaks of width 0.3 at -0.7 and 0.7: not linear in x."""
    variance = 0.3**2 + sigma**2
    return (0.3**2 * x + sigma**2 * 0.7 * torch.tanh(0.7 * x / variance)) / variance


def saying(scheduler, denoise):
    """A network that says of x what makes the scheduler think of our estimate."""
    prediction = scheduler.config.get("prediction_type", "v_prediction")  # iPNDM knows only v

    def answer(x, sigma):
        denoised = denoise(x, sigma)
        noise = (x - denoised) / sigma
        velocity = (noise - sigma * denoised) / (1 + sigma**2).sqrt()
        return noise if prediction == "epsilon" else velocity

    return answer


@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize(
    ("name", "changes", "rival", "settings", "allowed", "upto", "grid"),
    [
        (*rule, grid)
        for grid in GRIDS
        for rule in RULES
        if grid == "uniform" or rule[2] not in TABLED
    ],
)
def test_a_sampler_on_our_levels_is_theirs(
    name, changes, rival, settings, allowed, upto, grid, steps
):
    sigmas = GRIDS[grid](steps)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x *= (1 + sigmas[0] ** 2).sqrt()
    theirs, options = scheduler(rival, **settings)
    expected = their_states(theirs, steps, x, saying(theirs, denoise), sigmas, **options)
    expected = list(islice(expected, steps if upto is END else steps + upto))
    drawn = torch.float32 if rival == "DPMSolverMultistep" else torch.float64
    ours = our_states(name, denoise, sigmas, x, drawn, **changes)
    assert difference(ours[:upto], expected) < allowed


def test_every_sampler_is_compared_unless_they_have_none_like_it():
    assert {name for name, *_ in RULES} | NOT_THEIRS == set(YAMLS)


# as diffusers is used: their own levels, on the grid that both have, and float32
WHOLE = [
    ("ddim", {}, "DDIM", {"clip_sample": True}, "uniform", END),
    ("ddim", {"eta": 0.5}, "DDIM", {"eta": 0.5, "clip_sample": True}, "uniform", END),
    ("ddim", {"eta": 0.5}, "DDIM", {"eta": 0.5}, "uniform", END),
    ("ddpm", {}, "DDIM", {"eta": 1.0, "clip_sample": True}, "uniform", END),
    ("ddpm", {}, "DDPM", {"clip_sample": True}, "uniform", END),
    ("ddpm", {}, "DDPM", {}, "uniform", END),
    ("euler_ancestral", {}, "EulerAncestralDiscrete", {}, "uniform", END),
    ("heun", {}, "HeunDiscrete", {"clip_sample": True}, "uniform", END),
    ("unipc", {"order": 2}, "UniPCMultistep", {"lower_order_final": True}, "uniform", END),
    *[
        (name, changes, rival, {**settings, **KARRAS}, "karras", upto)
        for name, changes, rival, settings, _, upto in RULES
        if "use_karras_sigmas" in parameters(rival)
    ],
]


@pytest.mark.parametrize(("objective", "prediction"), [(eps, "epsilon"), (v, "v_prediction")])
@pytest.mark.parametrize(("name", "changes", "rival", "settings", "grid", "upto"), WHOLE)
def test_a_sampler_with_a_network_is_theirs(
    name, changes, rival, settings, grid, upto, objective, prediction, make_net
):
    net = make_net(init="torch", conditional=False).eval()
    theirs, options = scheduler(rival, prediction_type=prediction, **settings)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))

    def answer(x, sigma):
        c_noise = (sigma.log() / 4).float().expand(len(x))
        return net(x / (1 + sigma**2).sqrt().float(), c_noise)

    sigmas = GRIDS[grid](20)
    x = (1 + sigmas[0] ** 2).sqrt().float() * x
    with torch.no_grad():
        expected = their_states(theirs, 20, x, answer, **options)
        expected = list(islice(expected, 20 if upto is END else 20 + upto))
    denoise = Denoiser(net, objective(), unweighted(), torch.float32)
    held = clipped(denoise, -1, 1) if settings.get("clip_sample") else denoise
    ours = our_states(name, held, sigmas, x, torch.float32, **changes)
    assert difference(ours[:upto], expected) < 1e-4


def test_euler_along_the_straight_path_of_flow_matching_is_ddim():
    """Their state is (1 - t) x0 + t eps, which is ours times 1 - t; the network says eps - x0."""
    sigmas = GRIDS["karras"](20)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(1000)
    theirs.set_timesteps(20)
    theirs.sigmas = sigmas / (1 + sigmas)
    x = (1 + sigmas[0]) * torch.linspace(-2, 2, 64, dtype=torch.float64)
    y, expected = x, []
    for i, t in enumerate(theirs.timesteps):
        denoised = denoise(y, sigmas[i])
        velocity = (y - denoised) / sigmas[i] - denoised
        y = theirs.step(velocity, t, y / (1 + sigmas[i])).prev_sample * (1 + sigmas[i + 1])
        expected.append(y)
    assert difference(our_states("ddim", denoise, sigmas, x, x.dtype), expected) < ROUNDED
