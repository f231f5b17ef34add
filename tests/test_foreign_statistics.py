"""Mean and covariance that other tools wrote: read, or refused in one line that says why."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffuse.errors import DataError
from diffuse.foreign import read_statistics
from diffuse.metrics import Moments, fid, frechet


def features(n=300, d=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=random, dtype=torch.float64)
    return torch.randn(n, d, generator=random, dtype=torch.float64) @ mixing + seed


def statistics(table):
    return {"mu": table.numpy().mean(0), "sigma": np.cov(table.numpy(), rowvar=False)}


def test_the_distance_to_statistics_is_that_to_the_features_they_are_of(tmp_path):
    ours, theirs = features(seed=1), features()
    np.savez(tmp_path / "a.npz", **statistics(theirs))
    reference = read_statistics(tmp_path / "a.npz", dim=6)
    expected = fid(ours, theirs)
    assert reference.n is None
    assert frechet(Moments.of(ours), reference.moments) == pytest.approx(expected, rel=1e-12)
    np.savez(tmp_path / "b.npz", **statistics(theirs), n=300)
    counted = read_statistics(tmp_path / "b.npz")
    assert (counted.n, counted.moments.n) == (300, 300)
    assert frechet(Moments.of(ours), counted.moments) == pytest.approx(expected, rel=1e-12)


def test_float32_statistics_and_other_entries_are_welcome(tmp_path):
    found = {key: value.astype(np.float32) for key, value in statistics(features()).items()}
    np.savez(
        tmp_path / "a.npz", **found, arr_0=np.zeros((2, 3, 8, 8), np.uint8)
    )  # ADM's come with images
    assert read_statistics(tmp_path / "a.npz").moments.mean.dtype == torch.float64


def test_of_fewer_images_than_features_rounding_is_no_reason_to_refuse(tmp_path):
    """Most eigenvalues are 0 then, and end a little below it."""
    table = features(n=40, d=200).float().numpy()
    mean = table.mean(0)
    roughly = table.T @ table / len(table) - np.outer(mean, mean)
    for sigma in (np.cov(table, rowvar=False).astype(np.float32), roughly):
        assert np.linalg.eigvalsh(sigma.astype(np.float64))[0] < 0
        np.savez(tmp_path / "a.npz", mu=mean, sigma=sigma)
        assert read_statistics(tmp_path / "a.npz").moments.mean.numel() == 200


@pytest.mark.parametrize("n", [np.array([300]), 300.0, np.array([[300.0]]), np.uint16(300)])
def test_a_whole_number_of_any_kind_is_a_number_of_images(tmp_path, n):
    np.savez(tmp_path / "a.npz", **statistics(features()), n=n)
    assert read_statistics(tmp_path / "a.npz").n == 300


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_tensors_of_these_names_are_read_as_arrays_are(tmp_path, suffix):
    found = {key: torch.from_numpy(value) for key, value in statistics(features()).items()}
    (torch.save if suffix == ".pt" else save_file)(found, tmp_path / f"a{suffix}")
    np.savez(tmp_path / "a.npz", **statistics(features()))
    one, other = (read_statistics(tmp_path / f"a{kind}").moments for kind in (suffix, ".npz"))
    assert torch.equal(one.mean, other.mean)
    assert frechet(one, other) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [300, 300.0])
def test_a_number_of_python_stands_beside_tensors(tmp_path, n):
    tensors = {key: torch.from_numpy(value) for key, value in statistics(features()).items()}
    torch.save({**tensors, "n": n, "seed": 0}, tmp_path / "a.pt")
    assert read_statistics(tmp_path / "a.pt").n == 300


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"made_by": "us"}, "a.pt holds no table of tensors: made_by is str"),
        ({"n": [300]}, "a.pt holds no table of tensors: n is list"),
        ({"n": 2**64}, "a.pt holds no table of tensors: n is int"),
        ({"n": 300.5}, "a.pt: n must be a number of images"),
        ({"n": True}, "a.pt: n must be a number of images"),
    ],
)
def test_what_else_stands_beside_tensors_is_refused_by_its_key(tmp_path, more, message):
    tensors = {key: torch.from_numpy(value) for key, value in statistics(features()).items()}
    torch.save(tensors | more, tmp_path / "a.pt")
    with pytest.raises(DataError, match=message):
        read_statistics(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npy", np.save),
        ("a.npz", np.savez),
        ("a.pt", lambda path, array: torch.save(torch.from_numpy(array), path)),
    ],
)
def test_images_are_no_statistics(tmp_path, name, write):
    write(tmp_path / name, np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(
        DataError, match=rf"{name} is an array of images \(uint8 \[2, 8, 8, 3\]\), not statistics"
    ):
        read_statistics(tmp_path / name)
    write(tmp_path / name, np.zeros(6))
    with pytest.raises(DataError, match=r"has no 'mu': it holds .*; give images, or"):
        read_statistics(tmp_path / name)


def skewed(sigma):
    sigma = sigma.copy()
    sigma[0, 1] += 0.1
    return sigma


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("sigma"), "has no 'sigma': it holds mu"),
        (lambda s: s.update(mu=s["mu"][None]), r"must be \[d\] and \[d d\], got \[1, 6\]"),
        (lambda s: s.update(sigma=s["sigma"][:5]), r"got \[6\] and \[5, 6\]"),
        (lambda s: s.update(mu=s["mu"] * np.nan), "some values of mu are not finite"),
        (lambda s: s.update(sigma=skewed(s["sigma"])), "it is not symmetric"),
        (lambda s: s.update(sigma=-s["sigma"]), "some correlation is beyond 1"),
        (lambda s: s.update(sigma=1.9 * np.eye(6) - 0.9), "together vary less than 0"),
        (lambda s: s.update(sigma=s["sigma"] + 1j), "sigma must be floats, got complex128"),
        (lambda s: s.update(mu=s["mu"].astype(object)), "needs code to be run"),
        (lambda s: s.update(n=np.array([3, 4])), "n must be a number of images"),
        (lambda s: s.update(n=300.5), "n must be a number of images"),
        (lambda s: s.update(n=np.inf), "n must be a number of images"),
        (lambda s: s.update(n=1e300), "n must be a number of images"),
        (lambda s: s.update(mu=s["mu"] + 1e200), r"mu are beyond 1e\+100, no features are"),
        (lambda s: s.update(n=1.0), "n must be a number of images"),
        (lambda s: s.update(n=np.array("300")), "n must be a number of images"),
    ],
)
def test_statistics_that_cannot_be_are_refused(tmp_path, change, message):
    found = statistics(features())
    change(found)
    np.savez(tmp_path / "a.npz", **found)
    with pytest.raises(DataError, match=message):
        read_statistics(tmp_path / "a.npz")


def test_statistics_of_another_encoder_and_damaged_ones_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **statistics(features()))
    with pytest.raises(DataError, match="is about 6 features, the encoder makes 2048"):
        read_statistics(tmp_path / "a.npz", dim=2048)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is damaged"):
        read_statistics(tmp_path / "a.npz")
    with pytest.raises(DataError, match="no statistics at"):
        read_statistics(tmp_path / "b.npz")
