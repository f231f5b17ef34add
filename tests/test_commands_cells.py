"""The cells of `diffuse pareto`: which one is marked, how many steps fit, table and picture."""

import math

import numpy as np
import pytest

from diffuse import comparison
from diffuse.commands.evaluating import cells, fronts
from diffuse.commands.evaluating.cells import mark, within
from diffuse.metrics.intervals import around
from diffuse.plots.pareto import pareto


def cell(sampler, nfe, value, reach=1.0, **more):
    ends = None if value is None else [value - reach, value + reach]
    return {"sampler": sampler, "asked": [nfe], "nfe": nfe, "value": value, "ci95": ends,
            "seconds": nfe / 1000, "status": "done"} | more  # fmt: skip


def marked(rows, key):
    return [(row["sampler"], row["nfe"]) for row in rows if row[key]]


def test_the_cheapest_within_noise_of_the_best_is_marked():
    rows = [cell("a", 5, 30.0), cell("a", 10, 11.3), cell("a", 100, 10.0), cell("b", 50, 10.5)]
    mark(rows)
    assert marked(rows, "best") == [("a", 100)]
    assert marked(rows, "within_noise") == [("a", 10), ("a", 100), ("b", 50)]
    assert marked(rows, "cheapest") == [("a", 10)]


@pytest.mark.parametrize(("gap", "near"), [(math.sqrt(2) - 0.01, True), (math.sqrt(2) + 0.01, 0)])
def test_noise_is_both_intervals_in_quadrature_where_that_is_all_there_is(gap, near):
    rows = [cell("a", 100, 10.0), cell("a", 5, 10.0 + gap)]
    mark(rows)
    assert rows[1]["within_noise"] == rows[1]["cheapest"] == near


def test_with_seeds_in_common_it_is_the_differences_seed_by_seed():
    """Each interval is wide and all differences are 1: apart, though not by the intervals."""
    rows = [cell("a", 100, 10.0, per_seed=[8.0, 10.0, 12.0]),
            cell("a", 5, 11.0, per_seed=[9.1, 10.9, 13.0])]  # fmt: skip
    mark(rows)
    assert not comparison.difference(*rows, False).shown
    assert marked(rows, "cheapest") == [("a", 100)]


def drawn(sampler, nfe, blocks, **more):
    """A cell whose value is a mean over blocks of images, each with this mean."""
    left_out = [(sum(blocks) - one) / (len(blocks) - 1) for one in blocks]
    found = around(sum(blocks) / len(blocks), left_out)
    return cell(sampler, nfe, found.value, found.high - found.value) | found.record() | more


def test_a_cell_that_is_truly_worse_is_passed_over_though_the_noise_of_both_is_large():
    """All are drawn from the same noise: of 200 tables, worse by one deviation of a FID each."""
    random = np.random.default_rng(0)
    passed = noisy = held = 0
    for _ in range(200):
        noise, own = random.normal(0, math.sqrt(20), (2, 20))  # of a mean over 20 it is 1
        rows = [drawn("a", 100, 10 + noise), drawn("a", 5, 11 + noise + 0.3 * own)]
        mark(rows)
        passed += rows[1]["best"] or not rows[1]["cheapest"]
        _, high = rows[1]["minus_best"]["ci95"] if rows[0]["best"] else (0, 0)
        held += high > 1
        old = [{key: value for key, value in row.items() if key != "jackknife"} for row in rows]
        mark(old)
        noisy += old[1]["cheapest"]
    assert passed > 170
    assert held > 185
    assert noisy == 200  # with both intervals in quadrature it would always be chosen


def test_a_mark_says_how_much_worse_it_may_be_at_most():
    rows = [cell("a", 100, 10.0), cell("a", 5, 11.0), cell("b", 5, None)]
    mark(rows)
    assert [row["minus_best"] for row in rows] == [
        None, {"value": 1.0, "ci95": pytest.approx([1 - math.sqrt(2), 1 + math.sqrt(2)])}, None
    ]  # fmt: skip
    assert fronts._at_most(rows[1]) == {"  than the best": "worse by at most 2.4 (95%)"}
    assert fronts._at_most(rows[0]) == {}


def test_of_as_many_calls_the_lower_one_is_chosen_and_what_diverged_never():
    lost = {"sampler": "d", "nfe": 5, "value": None, "ci95": None}
    rows = [cell("a", 10, 10.6), cell("b", 10, 10.4), cell("c", 50, 10.0), lost]
    mark(rows)
    assert marked(rows, "cheapest") == [("b", 10)]
    assert marked(rows, "within_noise") == [("a", 10), ("b", 10), ("c", 50)]


@pytest.mark.parametrize(("each", "less"), [(1, 0), (2, 1), (2, 0), (3, 0), (4, 2)])
def test_the_most_steps_within_so_many_calls_are_found(each, less):
    for nfe in range(1, 40):
        found = within(nfe, lambda steps: each * steps - less)
        fitting = [steps for steps in range(1, nfe + 1) if each * steps - less <= nfe]
        assert found == (max(fitting) if fitting else None)


def test_steps_that_a_grid_does_not_have_are_too_many():
    assert within(50, lambda steps: steps if steps <= 20 else math.inf) == 20


def test_a_wide_table_is_broken_into_blocks(capsys):
    rows = [cell(f"sampler_{k}", nfe, 100.0 + nfe) for k in range(3) for nfe in range(1, 21)]
    fronts._print("FID", rows, fronts.value)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("+-") for line in lines) == 60
    assert [word for line in lines if "+-" not in line for word in line.split()][1:] == [
        str(nfe) for nfe in range(1, 21)
    ]


def test_an_interval_that_is_cut_off_at_0_reaches_as_far_as_its_upper_end():
    assert fronts.value({"value": 1.7, "ci95": [0.0, 4.24]}) == "1.7 +-2.5"


def test_a_picture_needs_a_cell_with_a_value(tmp_path):
    rows = [{"sampler": "a", "asked": [5], "nfe": 5, "value": None}]
    with pytest.raises(ValueError, match="no cell with a value"):
        pareto(rows, {"value": 1.0, "ci95": [0.5, 1.5]}, tmp_path / "pareto")


@pytest.mark.slow
@pytest.mark.parametrize("calls", [[5], [5, 10, 20]])
def test_a_picture_is_the_same_file_twice_and_shows_what_diverged(calls, tmp_path):
    rows = [cell(name, nfe, 100 / nfe + k) for k, name in enumerate("ab") for nfe in calls]
    rows.append({"sampler": "b", "asked": [7], "nfe": 7, "value": None, "seconds": None})
    cells.mark(rows)
    floor = {"value": 1.0, "ci95": [0.8, 1.2], "n": 500}
    made = [pareto(rows, floor, tmp_path / name / "pareto") for name in ("one", "two")]
    assert [p.read_bytes() for p in made[0]] == [p.read_bytes() for p in made[1]]
    text = made[0][1].read_text()
    assert "cheapest within noise of the best" in text
    assert "diverged" in text
    assert "500 real images: 1" in text
