"""`diffuse pareto`: exact calls, nothing drawn twice, and what cannot be drawn."""

import json
import os
import shlex
import signal

import pytest
from PIL import Image

from diffuse import runs
from diffuse.commands import drawing
from diffuse.denoiser import Denoiser
from diffuse.errors import DivergedError

LINE = "pareto device=cpu encoder=pixels n=8 batch=8"


@pytest.mark.slow
def test_every_cell_makes_the_calls_it_says_and_running_again_makes_none(trained, diffuse, network):
    line = f"{LINE} samplers=[ddim,heun] nfe=[2,5]"
    record = diffuse.json(line)
    found = {(c["sampler"], *c["asked"]): c["nfe"] for c in record["cells"]}
    assert found == {("ddim", 2): 2, ("ddim", 5): 5, ("heun", 2): 1, ("heun", 5): 5}
    assert sum(network) == 8 * sum(found.values())  # n=8, a batch of 8
    assert [c["shards"] for c in record["cells"]] == [{"drawn": 1, "known": 0}] * 4
    network.clear()
    again = diffuse.json(line)
    assert not network
    values = [[(c["value"], c["ci95"], c["seconds"]) for c in r["cells"]] for r in (record, again)]
    assert values[0] == values[1]


def test_running_again_encodes_nothing_and_eval_knows_the_features(
    trained, diffuse, counted_encoder
):
    words, seen = counted_encoder
    line = f"pareto device=cpu {words} n=8 batch=8 samplers=[ddim,ipndm] nfe=[2]"
    record = diffuse.json(line)
    assert seen
    seen.clear()
    again = diffuse.json(line)
    evaluated = diffuse.json(f"eval device=cpu {words} n=8 batch=8 sampler=ddim nfe=2 metrics=fid")
    assert seen == []
    values = [[cell["value"] for cell in one["cells"]] for one in (record, again)]
    assert values[0] == values[1]
    assert evaluated["fid"]["value"] == values[0][0]
    assert evaluated["schema"] == record["schema"]  # of every record.json
    more = diffuse.json(line.replace("ipndm", "ipndm,heun"))
    assert len(seen) == 1
    assert [cell["value"] for cell in more["cells"]][:2] == values[0]


@pytest.mark.slow
def test_another_sampler_costs_only_that_sampler_and_eval_knows_its_images(
    trained, diffuse, network
):
    diffuse.json(f"{LINE} samplers=[ddim,heun] nfe=[2,5]")
    network.clear()
    record = diffuse.json(f"{LINE} samplers=[ddim,heun,dpmpp_2m] nfe=[2,5]")
    assert sum(network) == 8 * (2 + 5)
    assert [c["shards"]["known"] for c in record["cells"]] == [1, 1, 1, 1, 0, 0]
    network.clear()
    words = "sampler=dpmpp_2m nfe=5 kid_subsets=2 kid_subset_size=4"
    scored = diffuse.json(f"eval device=cpu encoder=pixels n=8 batch=8 {words}")
    assert not network
    assert scored["fid"]["value"] == record["cells"][-1]["value"]
    assert scored["fid"]["floor"] == record["cells"][-1]["floor"] == record["fid_floor"]["value"]
    assert scored["fid"]["ci95"] == record["cells"][-1]["ci95"]


@pytest.mark.slow
def test_guidance_takes_two_calls_a_step(trained, diffuse, network):
    record = diffuse.json(f"{LINE} samplers=[ddim,heun] nfe=[1,7] guidance=2")
    found = {(c["sampler"], *c["asked"]): (c["steps"], c["nfe"]) for c in record["cells"]}
    assert found == {("ddim", 7): (3, 6), ("heun", 7): (2, 6)}
    assert sum(network) == 8 * 12
    assert [(one["sampler"], one["asked"]) for one in record["left_out"]] == [
        ("ddim", 1), ("heun", 1)
    ]  # fmt: skip
    assert record["left_out"][0]["reason"] == "a single step takes 2 calls"
    assert record["sampler"]["guidance"]["weight"] == 2


@pytest.mark.slow
def test_every_sampler_is_on_the_grid_that_its_yaml_names(trained, diffuse):
    planned = diffuse.json(f"{LINE} samplers=[ddim,heun,dpmpp_2m] nfe=[3] dry_run=true")
    assert [row["grid"] for row in planned["cells"]] == ["uniform", "karras", "logsnr"]
    assert not (trained.parents[2] / "pareto").exists()


@pytest.mark.slow
def test_a_dry_run_says_how_many_images_are_to_be_drawn(trained, diffuse, network):
    line = f"{LINE} samplers=[ddim] nfe=[1,2]"
    before = diffuse.json(f"{line} dry_run=true")
    assert (before["to_draw"], before["calls"], before["seconds"]) == (16, 24, None)
    assert not (trained.parents[2] / ".samples").exists()
    assert not network
    diffuse.json(line)
    after = diffuse.json(f"{line} n=12 dry_run=true")
    assert [row["to_draw"] for row in after["cells"]] == [4, 4]
    assert after["seconds"] > 0


def test_what_is_printed_is_narrow_and_names_the_choice(trained, diffuse):
    assert diffuse(f"{LINE} samplers=[ddim,heun,rk45] nfe=[1,4]") == 0
    assert max(map(len, diffuse.out.splitlines())) <= 80
    for words in ("FID, by network calls", "heun makes", "3 of 4 calls", "good enough",
                  "no rk45", "it chooses its own number of calls", "real images"):  # fmt: skip
        assert words in diffuse.out
    folder = trained.parents[2] / "pareto/tiny/v001"
    assert Image.open(folder / "pareto.png").size[0] == 1200
    assert (folder / "pareto.svg").exists()
    record = json.loads((folder / "record.json").read_text())
    assert {"encoder", "reference", "weights", "seeds", "versions", "command"} <= record.keys()
    assert runs.read(folder)["status"] == "done"


@pytest.mark.slow
def test_what_diverges_is_said_and_does_not_lose_the_others(trained, diffuse, monkeypatch):
    draw = drawing.draw

    def unstable(trained, plan, *more):
        if plan.calls == 3:
            raise DivergedError("sampling: |x| is 1e+09 after step 2")
        return draw(trained, plan, *more)

    monkeypatch.setattr(drawing, "draw", unstable)
    record = diffuse.json(f"{LINE} samplers=[ddim] nfe=[2,3,4]")
    assert [c["status"] for c in record["cells"]] == ["done", "diverged", "done"]
    assert record["cells"][1]["value"] is None
    assert "|x| is 1e+09" in record["cells"][1]["reason"]
    assert diffuse(f"{LINE} samplers=[ddim] nfe=[2,3,4]") == 0
    assert "diverged" in diffuse.out
    assert "no sampler came to an end" in diffuse.error(f"{LINE} samplers=[ddim] nfe=[3]", code=4)
    assert runs.read(trained.parents[2] / "pareto/tiny/v003")["status"] == "diverged"


@pytest.mark.slow
def test_what_was_drawn_before_an_interrupt_stays(trained, diffuse, network, monkeypatch):
    line = "pareto device=cpu encoder=pixels n=8 batch=4 samplers=[ddim,heun] nfe=[1,2,20]"
    watched = Denoiser.forward

    def told(self, x, *more):
        if len(network) == 20:  # ddim: twice 1, twice 2, and on the way to 20
            os.kill(os.getpid(), signal.SIGINT)
        return watched(self, x, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "forward", told)
        assert diffuse(line) == 130
    assert "2 of 5 are measured: the same command goes on" in diffuse.err
    assert runs.read(trained.parents[2] / "pareto/tiny/v001")["status"] == "stopped"
    network.clear()
    record = diffuse.json(line)
    assert [c["shards"]["known"] for c in record["cells"]][:2] == [2, 2]
    assert sum(network) == 8 * (20 + 1 + 19)


@pytest.mark.slow
def test_seeds_are_drawn_for_every_cell(trained, diffuse, network):
    record = diffuse.json(f"{LINE} samplers=[ddim] nfe=[1,2] seeds=2")
    assert sum(network) == 2 * 8 * 3
    assert [len(c["per_seed"]) for c in record["cells"]] == [2, 2]
    assert record["seeds"]["count"] == 2


@pytest.mark.slow
def test_a_sweep_over_weights_is_a_front_for_each(trained, diffuse):
    assert diffuse(f"{LINE} samplers=[ddim] nfe=[2] weights=ema,raw -m") == 0
    paths = (trained.parents[2] / "pareto").glob("*/v001/[01]/record.json")
    ema, raw = (json.loads(path.read_text()) for path in sorted(paths))
    assert ema["weights"]["sha256"] != raw["weights"]["sha256"]
    assert ema["cells"][0]["value"] != raw["cells"][0]["value"]


@pytest.mark.slow
def test_a_sampler_of_ones_own_takes_part(trained, diffuse, tmp_path):
    (tmp_path / "mine/sampler").mkdir(parents=True)
    (tmp_path / "mine/sampler/half.yaml").write_text("name: ddim\neta: 0.5\nnoise: 1.0\n")
    record = diffuse.json(f"{LINE} --config-dir mine samplers=[half] nfe=[2]")
    assert record["cells"][0]["how"]["options"] == {"eta": 0.5, "noise": 1.0}
    assert "samplers=[half]" in (words := shlex.split(record["command"]))
    assert words[words.index("--config-dir") + 1] == "mine"


ERRORS = {
    "samplers=[heunn]": "samplers: unknown choice 'heunn'; did you mean 'heun'?",
    "samplers=[ddim,ddim]": "samplers: ddim is listed twice",
    "samplers=[]": "samplers needs at least one value",
    "samplers=ddim,heun": "write a list: samplers=[ddim,heun]",
    "nfe=[5,5]": "nfe: 5 is listed twice",
    "nfe=5": "nfe cannot be 5, it is a list: write nfe=[5]",
    "nfe=[]": "nfe needs at least one value",
    "nfe=[0,5]": "nfe must be at least 1, got 0",
    "n=3": "n must be at least 4, got 3",
    "guidance=2 guide=ema_0.7": "guide: ",
    "samplers=[ddim] nfe=[2] guide=early": "guide=early: it does nothing at guidance=1",
    "samplers=[rk45,ddim_predicted]": "samplers: none is left: rk45: it chooses its own number",
    "samplers=[ddim] nfe=[1] guidance=2": "none is left: ddim: a single step takes 2 calls",
}


@pytest.mark.parametrize(("words", "message"), ERRORS.items())
def test_what_cannot_be_is_one_line(words, message, trained, diffuse):
    assert message in diffuse.error(f"{LINE} {words}")
    assert not (trained.parents[2] / "pareto").exists()
