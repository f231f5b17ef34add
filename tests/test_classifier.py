"""The classifier whose features judge images: it learns, from its seed alone, or says why not."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse import cli
from diffuse.classifier import (
    accuracy,
    augment,
    new_classifier,
    train_classifier,
    training_steps,
)
from diffuse.data import ImageSpec, open_dataset
from diffuse.encoders import about_encoder, classifier, encode
from diffuse.errors import DivergedError
from diffuse.seeds import generator


def digits(split):
    data = open_dataset({"name": "digits", "fit": "none"}, split)
    return data.images, data.labels


def trained(images, labels, epochs=1, lr=0.01, seed=0, n=10):
    net = new_classifier(images.shape[1], n, width=8, blocks=(1, 1, 1), seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr)
    steps = train_classifier(
        net,
        optimizer,
        images,
        labels,
        epochs=epochs,
        batch=64,
        crop=1,
        flip=False,
        seed=seed,
        dtype=torch.float32,
    )
    return net, list(steps)


def test_a_classifier_learns_to_read_digits_it_has_not_seen():
    images, labels = digits("train")
    net, steps = trained(images, labels, epochs=8)
    total = training_steps(len(images), 8, 64)
    assert [step.number for step in steps] == list(range(1, total + 1))
    assert total == 8 * (1437 // 64)
    assert max(step.lr for step in steps) == pytest.approx(0.01, rel=0.01)
    assert accuracy(net, *digits("test")) > 0.85


def test_training_depends_on_its_seed_alone():
    images, labels = digits("train")
    torch.manual_seed(1)
    one, _ = trained(images[:200], labels[:200])
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two, _ = trained(images[:200], labels[:200])
    other, _ = trained(images[:200], labels[:200], seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_augmentation_moves_and_mirrors_and_invents_nothing():
    images = torch.zeros(400, 2, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 4], images[:, 1, 4, 5] = 100, 200  # channels move together
    random = generator(0)
    assert torch.equal(augment(images, crop=0, flip=False, random=random), images)
    shifted = augment(images, crop=2, flip=False, random=random)
    assert (shifted.sum((1, 2, 3), dtype=torch.int64) == 300).all()
    rows, columns = shifted[:, 0].nonzero()[:, 1], shifted[:, 0].nonzero()[:, 2]
    assert {*rows.tolist()} == {*columns.tolist()} == {2, 3, 4, 5, 6}
    assert torch.equal(shifted[:, 1].nonzero()[:, 2], columns + 1)
    mirrored = augment(images, crop=0, flip=True, random=random)[:, 1, 4, 3] == 200
    assert 140 < int(mirrored.sum()) < 260


def test_a_loss_that_explodes_ends_training_with_its_own_exit_code():
    images, labels = digits("train")
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+: try a lower"):
        trained(images, labels, epochs=2, lr=1e30)


def test_labels_and_images_that_cannot_be_learned_from_are_refused():
    images, labels = digits("train")
    with pytest.raises(ValueError, match="needs a label >= 0"):
        trained(images, torch.full_like(labels, -1))
    with pytest.raises(ValueError, match="must be uint8"):
        trained(images.float(), labels)
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        trained(images, labels, epochs=0)


def test_the_command_trains_one_that_evaluation_can_use(tmp_path, capsys):
    words = ["dataset=digits", "epochs=1", "batch=64", "width=8", "precision=fp32"]
    code = cli.main(["encoder", *words, f"outputs={tmp_path}", "--json"])
    facts = json.loads(capsys.readouterr().out)
    folder = tmp_path / "encoder/digits/v001"
    spec = ImageSpec("digits", 1, 8, 8, 8, 8, "none", ("a", "b"))
    encoder = classifier(spec, path=str(folder), sha256=facts["sha256"])
    about = about_encoder(folder)
    assert code == 0
    assert encoder.name == "digits-classifier"
    assert about["training"]["command"].startswith("diffuse encoder dataset=digits epochs=1")
    assert about["test_accuracy"] == facts["accuracy"]
    assert about["chance"] == digits("test")[1].bincount().max() / 360
    assert facts["status"] == "done"
    logits = encoder.head(encode(encoder, digits("test")[0]))
    assert float((logits.argmax(1) == digits("test")[1]).double().mean()) == facts["accuracy"]


@pytest.mark.parametrize(
    ("words", "warned", "offered"),
    [
        ("epochs=1 dataset.subset=64", True, False),
        ("debug=smoke", False, False),
        ("epochs=3", False, True),
    ],
)
def test_what_learnt_too_little_is_not_offered_for_use(words, warned, offered, tmp_path, capsys):
    line = ["encoder", "dataset=digits", *words.split(), f"outputs={tmp_path}", "width=16"]
    assert cli.main([*line, "batch=64", "precision=fp32"]) == 0
    said = capsys.readouterr()
    assert ("learnt too little: it is right on" in said.err) == warned
    assert ("encoder.path=" in said.out) == offered


@pytest.mark.parametrize("word", ["dataset.subset=200", "dataset.classes=[0,1,2]"])
def test_an_encoder_of_a_part_of_the_data_does_not_bear_its_name(tmp_path, capsys, word):
    words = ["dataset=digits", "epochs=1", "width=8", "precision=fp32", word]
    assert cli.main(["encoder", *words, f"outputs={tmp_path}", "--json"]) == 0
    about = about_encoder(tmp_path / "encoder/digits/v001")
    assert about["name"] == f"digits-{about['data']['train_sha256'][:8]}-classifier"


def test_nor_does_one_of_a_folder_that_is_called_like_a_published_set(tmp_path, capsys):
    for k in range(40):
        image = Image.fromarray(np.full((32, 32, 3), 6 * k, np.uint8))
        home = tmp_path / "cifar10" / ("cat", "dog")[k % 2]
        home.mkdir(parents=True, exist_ok=True)
        image.save(home / f"{k}.png")
    words = ["dataset=folder", f"dataset.root={tmp_path}/cifar10", "epochs=1", "width=8", "name=x"]
    assert cli.main(["encoder", *words, f"outputs={tmp_path}/out", "--json"]) == 0
    about = about_encoder(tmp_path / "out/encoder/x/v001")
    assert about["name"] == f"cifar10-{about['data']['train_sha256'][:8]}-classifier"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("precision=fp16", "fp16 would need"),
        ("optimizer.lrr=1", "did you mean 'optimizer.lr'"),
        ("dataset.classes=[3]", "two classes are needed, digits has 1"),
    ],
)
def test_a_bad_command_leaves_no_folder_behind(tmp_path, capsys, word, message):
    assert cli.main(["encoder", "dataset=digits", word, f"outputs={tmp_path}/out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
