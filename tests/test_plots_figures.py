"""Figures: they hold what they should, and what they show is what the formulas say."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse import noise_laws, objectives, schedules
from diffuse.data import to_range
from diffuse.plots import curves, states
from diffuse.plots.figures import plain, sheet
from diffuse.plots.pareto import pareto
from diffuse.seeds import generator

LINEAR = schedules.linear(betamax=0.02, betamin=1e-4, T=1000, zero_snr=False)
COSINE = schedules.cosine(s=0.0, t_min=0.001, t_max=0.999)


def test_a_figure_is_a_png_that_is_not_blank_and_an_svg_that_can_be_read(tmp_path):
    """The others are tried by `diffuse plot`."""
    png, svg = curves.schedules({"one": LINEAR, "two": COSINE}, tmp_path / "x")
    pixels = np.asarray(Image.open(png).convert("L"))
    assert pixels.shape[1] >= 1000
    assert pixels.std() > 10
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert ">one" in svg.read_text()
    assert ">two" in svg.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.png", "x.svg"]


def test_the_same_figure_is_the_same_file(tmp_path):
    images = torch.randint(0, 256, (2, 2, 1, 4, 4), dtype=torch.uint8)
    first, second = (sheet(tmp_path / name, images, "a title", ["1", "2"]) for name in "ab")
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(("rows", "columns", "channels"), [(1, 1, 1), (3, 4, 3), (6, 10, 1)])
def test_every_image_fills_the_same_area_of_a_sheet(rows, columns, channels, tmp_path):
    values = torch.arange(rows * columns, dtype=torch.uint8) * 4
    images = values.view(rows, columns, 1, 1, 1).expand(-1, -1, channels, 6, 9)
    png, svg = sheet(
        tmp_path / "x", images, "a title", ["left"] * rows, ["1\n2"] * columns, "t\nsigma", 2
    )
    pixels = np.asarray(Image.open(png).convert("RGB"))[..., 0]
    areas = np.array([(pixels == value).sum() for value in values.tolist()[1:]])
    wide = pixels.shape[1] / columns
    assert (areas > 0.4 * wide * wide * 6 / 9).all()  # labels beside them, gaps between
    if len(areas):
        assert areas.max() / areas.min() < 1.2
    words = ElementTree.parse(svg).getroot().itertext()
    assert {"a title", "left", "sigma"} <= {word.strip() for word in words}


def test_the_flat_share_of_a_table_is_a_count_and_of_a_continuous_schedule_exact():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert curves.flat(LINEAR) == pytest.approx((alpha_bar < 0.01).mean())
    # cos(a)^2 = 0.01 at a = acos(0.1); [0, 1] is the paper's [0.001, 0.999]
    reached = math.acos(0.1) * 2 / math.pi
    assert curves.flat(COSINE) == pytest.approx((0.999 - reached) / 0.998, abs=1e-9)
    assert curves.flat(COSINE, below=1e-9) == 0


def test_the_betas_of_a_table_are_those_it_was_made_of():
    expected = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(curves.betas(LINEAR.table), expected, rtol=1e-9, atol=1e-12)


def test_the_slope_is_the_derivative_of_alpha_bar():
    t = 0.001 + 0.998 * torch.linspace(0, 1, curves.POINTS, dtype=torch.float64)
    expected = -0.998 * math.pi / 2 * torch.sin(math.pi * t)
    torch.testing.assert_close(curves.slope(COSINE)[1:-1], expected[1:-1], rtol=0, atol=1e-4)


def test_the_histogram_of_a_law_over_t_is_its_density():
    law = noise_laws.triangular(COSINE, mode=0.5, stratified=True)
    (density, edges), _ = curves.histograms(law(200_000, generator(0)), COSINE)
    cumulated = torch.where(edges < 0.5, 2 * edges**2, 1 - 2 * (1 - edges) ** 2)
    torch.testing.assert_close(density, cumulated.diff() / edges.diff(), rtol=0, atol=0.01)


def test_the_histogram_of_a_law_over_log_sigma_is_its_density():
    wide = schedules.ve(sigma_min=0.002, sigma_max=80.0)
    law = noise_laws.lognormal(wide, mean=-1.2, std=1.2, stratified=True)
    _, (density, edges) = curves.histograms(law(200_000, generator(0)), wide)
    middle = (edges[1:] + edges[:-1]) / 2 * math.log(10)
    expected = torch.exp(-(((middle + 1.2) / 1.2) ** 2) / 2) / (1.2 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(density, expected * math.log(10), rtol=0, atol=0.005)


def test_the_embedding_is_sines_and_cosines_of_log_sigma():
    values = curves.told(COSINE, 8, 100.0).double()
    sigma = COSINE.sigma(torch.linspace(0, 1, curves.POINTS, dtype=torch.float64))
    for k in range(4):
        angle = 250 * sigma.log() * 100 ** (-k / 3)
        torch.testing.assert_close(values[:, k], angle.sin(), rtol=0, atol=2e-3)
        torch.testing.assert_close(values[:, 4 + k], angle.cos(), rtol=0, atol=2e-3)


OBJECTIVES = [
    objectives.eps(),
    objectives.x0(),
    objectives.v(),
    objectives.edm(0.5),
    objectives.flow(),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_an_image_under_almost_no_noise_is_the_image(objective):
    images = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    sigma = torch.tensor([1e-4, 5.0], dtype=torch.float64)
    x0 = to_range(images, (-1, 1))
    x, _ = states.noised(x0, torch.randn_like(x0), sigma, objective)
    shown = states.beside(states.scaled(x, sigma, objective), range=(-1, 1))
    assert (shown[:, 0] == images).all()
    assert (shown[:, 1] != images).any()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_a_network_that_hits_the_target_has_found_the_image(objective):
    x0, eps = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)
    x, target = states.noised(x0, eps, sigma, objective)
    c_skip, c_out, _ = (row[:, None, None, None] for row in objective.coefficients(sigma))
    found = c_skip * x + c_out * target
    torch.testing.assert_close(found, x0[:, None].expand_as(found), rtol=0, atol=1e-10)


def test_kinds_of_states_stand_under_each_other_image_by_image():
    first = torch.zeros(2, 3, 1, 1, 1)
    rows = states.beside(first, first + 1, range=(0, 1))
    assert rows[:, 0, 0, 0, 0].tolist() == [0, 255, 0, 255]


def test_a_picture_of_an_embedding_shows_no_pattern_of_its_columns():
    """What turns slowly is as it is, what turns faster than the columns is 0, not a block."""
    shown = curves.blended(COSINE, 64, 10_000.0)
    assert shown.shape == (curves.COLUMNS, 64)
    assert shown.abs().max() <= 1
    middle = (torch.arange(curves.COLUMNS, dtype=torch.float64) + 0.5) / curves.COLUMNS
    slow = (250 * COSINE.sigma(middle).log() / 10_000).sin()
    torch.testing.assert_close(shown[:, 31].double()[5:-5], slow[5:-5], rtol=0, atol=1e-2)
    assert shown[5:10, 0].abs().max() < 0.05  # five turns in a column
    single = curves.told(COSINE, 64, 10_000.0)
    assert single[10:20, 0].abs().max() > 0.5


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.9, 55, "1 2 5 10 20 50"),
        (3.1, 10.5, "4 5 6 8 10"),
        (41, 47, "42 43.5 45 46.5"),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(low, high, expected):
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    panel.set_yscale("log")
    plain(panel.yaxis, low, high)
    assert " ".join(label.get_text() for label in panel.get_yticklabels()) == expected


def test_points_of_pareto_stand_aside_only_where_intervals_overlap(tmp_path, drawn_figures):
    cells = [
        {"sampler": name, "cheapest": name == "a", "asked": [5], "nfe": 5, "value": value,
         "ci95": [value - 1, value + 1], "seconds": 0.01}
        for name, value in (("a", 40.0), ("b", 41.0), ("c", 60.0))
    ]  # fmt: skip
    pareto(cells, {"value": 2.0, "ci95": [1.0, 3.0], "n": 1437}, tmp_path / "pareto")
    found = {
        bars.get_label(): bars.lines[0].get_xdata()[0]
        for bars in drawn_figures[0].axes[0].containers
    }
    assert found["c"] == 5
    assert found["a"] < 5 < found["b"]
    assert found["b"] / found["a"] == pytest.approx(1.02)


def test_what_the_marks_of_pareto_mean_is_said_outside_the_panels(tmp_path, drawn_figures):
    done = {"asked": [5], "nfe": 5, "value": 40.0, "ci95": [39.0, 41.0], "seconds": 0.01}
    cells = [{"sampler": "a", "cheapest": True} | done, {"sampler": "b", "cheapest": False} | done]
    cells.append({"sampler": "b", "asked": [2], "nfe": 2, "value": None, "seconds": None})
    pareto(cells, {"value": 2.0, "ci95": [1.0, 3.0], "n": 1437}, tmp_path / "pareto")
    figure = drawn_figures[0]
    assert [panel.get_legend() for panel in figure.axes] == [None, None]
    marks, samplers = figure.legends
    assert [text.get_text() for text in samplers.get_texts()] == ["a", "b"]
    assert [text.get_text() for text in marks.get_texts()] == [
        "cheapest within noise of the best: a, 5 calls, 10 ms, FID 40",
        "1,437 real images: 2  (band: 95%)",
        "diverged, at the upper edge",
    ]
    panels = [panel.get_tightbbox() for panel in figure.axes]
    assert marks.get_window_extent().y1 <= min(box.y0 for box in panels)
    assert samplers.get_window_extent().y0 >= max(box.y1 for box in panels)
