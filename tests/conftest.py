"""What many proofs need: a few images with classes, a small network, a training of it."""

import contextlib
import json
import math
import os
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from processes import Start

from diffuse import cli, training
from diffuse.classifier import new_classifier
from diffuse.data import ImageSet, ImageSpec, sources
from diffuse.denoiser import Denoiser
from diffuse.encoders import Encoder, pixels, save_encoder
from diffuse.grids import uniform as grid
from diffuse.models import UNet
from diffuse.noise_laws import uniform
from diffuse.objectives import v
from diffuse.samplers import ddim
from diffuse.sampling import Plan
from diffuse.schedules import cosine
from diffuse.scoring import Judge, rows_of
from diffuse.training import Recipe, Training
from diffuse.weightings import uniform as unweighted

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """What tests decode and compute stays out of the user's cache, whose data serves them, too.

    All workers of one run share it. What a test had to fetch is put into the user's at the end.
    """
    users = sources.cache() / "fashion_mnist"
    base = tmp_path_factory.getbasetemp()
    ours = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache" / users.name
    ours.parent.mkdir(exist_ok=True)
    if users.exists():
        with contextlib.suppress(FileExistsError):  # another worker's
            ours.symlink_to(users)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSE_CACHE", str(ours.parent))
        yield
    if ours.exists() and not ours.is_symlink():
        beside = users.with_name(f".{users.name}-{os.getpid()}")
        with sources.locked(users):
            if not users.exists():
                shutil.copytree(ours, beside).rename(users)


@pytest.fixture(scope="session", autouse=True)
def _timed():
    """Eight steps of a small network are timed in no time."""
    training.TIMED = 0.1


@pytest.fixture
def start(tmp_path):
    """start(command), start.train(words): a process, of which nothing is left after the test."""
    start = Start(tmp_path)
    yield start
    start.end()


@pytest.fixture
def make_net():
    """A UNet of some 7,000 weights; any of its arguments can be changed."""

    def make(**changes):
        torch.manual_seed(changes.pop("seed", 0))
        settings = {
            "channels": 1, "size": (8, 8), "classes": 3, "width": 8, "mults": [1, 2], "blocks": 1,
            "groups": 4, "attention": [], "head_dim": None, "middle": "none", "dropout": 0.0,
            "patch": 1, "upsample": "nearest", "skips": "level", "modulation": "scale_shift",
            "conditional": True, "noise_level": True, "init": "zero",
        }  # fmt: skip
        return UNet(**{**settings, **changes})

    return make


@pytest.fixture
def images():
    """32 gray images of 8x8 in three classes; none looks the same in a mirror."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (32, 1, 8, 8), generator=random, dtype=torch.uint8)
    spec = ImageSpec("noise", 1, 8, 8, 8, 8, "none", ("a", "b", "c"))
    return ImageSet(spec, pixels, torch.arange(32) % 3, "sha", "a test", flip=False)


@pytest.fixture
def law():
    return uniform(cosine(s=0.008, t_min=0.001, t_max=0.999), stratified=True)


@pytest.fixture
def make_recipe():
    def make(**changes):
        settings = {
            "steps": 6, "batch": 8, "lr_schedule": "cosine", "warmup": 2, "clip_grad": 1.0,
            "label_dropout": 0.1, "shuffle": True, "range": (-1.0, 1.0), "seed": 0,
        }  # fmt: skip
        return Recipe(**{**settings, **changes})

    return make


@pytest.fixture
def make_training(make_net):
    """A training at its beginning: make_training(optimizer of parameters, precision, net...)."""

    def adamw(parameters):
        return torch.optim.AdamW(parameters, lr=1e-2, eps=1e-5)

    def make(optimizer=adamw, precision=torch.float32, **changes):
        net = make_net(**changes)
        denoiser = Denoiser(net, v(), unweighted(), precision)
        return Training.new(denoiser, optimizer(net.parameters()), ema=0.9)

    return make


@pytest.fixture
def make_plan():
    """How images are drawn: four steps of DDIM, four images at a time."""

    def make(**changes):
        schedule = cosine(s=0.008, t_min=0.001, t_max=0.999)
        settings = {
            "sampler": partial(ddim, eta=1.0, noise=1.0), "sigmas": grid(4, schedule, "trailing"),
            "range": (-1.0, 1.0), "clip": "range", "start": "vp", "seed": 0, "batch": 4,
            "moments": (0.0, 0.5),
        }  # fmt: skip
        return Plan(**{**settings, **changes})

    return make


TINY = (
    "dataset=digits dataset.subset=64 model.width=8 model.groups=4 model.mults=[1,2] "
    "model.blocks=1 model.patch=1 optimizer=adamw precision=fp32 device=cpu train.batch=16 "
    "train.warmup=2 train.ema=0.5 train.sample_every=2 train.save_every=2 train.log_every=1 "
    "n=4 steps=2 name=tiny"
)


class Shell:
    """`diffuse ...` in this process and in an empty folder: exit code, stdout and stderr."""

    def __init__(self, capsys):
        self.capsys = capsys

    def __call__(self, line):
        self.capsys.readouterr()
        self.code = cli.main(line.split())
        self.out, self.err = self.capsys.readouterr()
        return self.code

    def train(self, line="train.steps=4"):
        return self(f"train {TINY} {line}")

    def json(self, line):
        """What a command that must succeed prints."""
        assert self(f"{line} --json") == 0, self.err
        return json.loads(self.out)

    def error(self, line, code=2):
        """A command that must fail in one line: that line."""
        assert self(line) == code, self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("error: ")
        assert "Traceback" not in self.err
        assert self.out == ""
        return last.removeprefix("error: ")


@pytest.fixture(scope="session")
def tiny():
    """The words of a training that takes a fifth of a second."""
    return TINY


@pytest.fixture
def diffuse(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return Shell(capsys)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    """One training of four steps that all tests of its successors share."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        line = f"train {TINY} train.steps=4 train.eval_every=2 train.eval_n=16"
        assert cli.main(line.split()) == 0
    return folder / "outputs"


@pytest.fixture
def trained(_trained, diffuse, tmp_path):
    """Its folder, copied to where `diffuse` runs."""
    shutil.copytree(_trained, tmp_path / "outputs", symlinks=True)
    return tmp_path / "outputs/train/tiny/v001"


@pytest.fixture
def poison(monkeypatch):
    """Let the levels of some steps be no numbers; poison(steps, times) spoils rollbacks, too."""
    real = training.batch_of

    def poison(steps, times=1):
        def draw(images, law, recipe, number, rollbacks=0, *ranks):
            x0, label, sigma, eps = real(images, law, recipe, number, rollbacks, *ranks)
            bad = number in steps and rollbacks < times
            return x0, label, sigma * (math.nan if bad else 1), eps

        monkeypatch.setattr(training, "batch_of", draw)

    return poison


@pytest.fixture
def network(monkeypatch):
    """A list with an entry for each batch that the network is called on."""
    made, forward = [], Denoiser.forward

    def watched(self, x, *more):
        made.append(len(x))
        return forward(self, x, *more)

    monkeypatch.setattr(Denoiser, "forward", watched)
    return made


@pytest.fixture
def drawn_figures(monkeypatch):
    """Each figure that is saved, once."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def seen(self, *others, **more):
        if self not in figures:
            figures.append(self)
        save(self, *others, **more)

    monkeypatch.setattr(Figure, "savefig", seen)
    return figures


@pytest.fixture
def counted_encoder(tmp_path, monkeypatch):
    """A classifier that has learned nothing: the words for it, and how many images it sees."""
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    net = new_classifier(channels=1, classes=10, width=8, blocks=(1, 1), seed=0).eval()
    about = {"name": "small", "channels": 1, "height": 8, "width": 8, "classes": [*"0123456789"]}
    save_encoder(tmp_path / "encoder.safetensors", net, about)
    seen, forward = [], Encoder.forward

    def counted(self, images):
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Encoder, "forward", counted)
    return "encoder=classifier encoder.path=encoder.safetensors", seen


@pytest.fixture
def kept(trained):
    """Where the shards of `trained` are kept."""
    return trained.parents[2] / ".samples"


@pytest.fixture
def judge(images):
    """Pixels of `images` beside 40 training images."""
    random = torch.Generator().manual_seed(1)
    others = torch.randint(0, 256, (40, 1, 8, 8), generator=random, dtype=torch.uint8)
    train = replace(images, images=others, labels=torch.arange(40) % 3, sha256="train")
    return Judge(pixels(images.spec, 4), train=train, test=images)


@pytest.fixture
def drawn(judge):
    """Rows of gray images by their seed, three classes in turn."""

    def draw(seed, n=24):
        random = torch.Generator().manual_seed(100 + seed)
        grey = torch.randint(60, 200, (n, 1, 8, 8), generator=random, dtype=torch.uint8)
        return rows_of(judge.encoder, grey, torch.arange(n) % 3)

    return draw
