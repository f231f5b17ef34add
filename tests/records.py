"""A record of an evaluation, as `diffuse eval` writes it."""

SHA = {name: f"{number:064x}" for number, name in enumerate(("net", "test", "train", "weights"))}
RECORD = {
    "schema": 2,
    "n": 2048,
    "fid": {"value": 10.0, "ci95": [9.0, 11.0], "floor": 1.0},
    "kid": {"value": 0.01, "ci95": [0.0, 0.02], "floor": 0.0, "sd": 0.1},
    "metrics": {},
    "encoder": {
        "name": "fashion_mnist-classifier", "sha256": SHA["net"], "layer": "last", "features": 128,
        "size": [28, 28], "channels": 1, "filter": "bilinear antialias", "range": [-1.0, 1.0],
        "rounding": "uint8",
    },
    "reference": {
        "dataset": "fashion_mnist", "split": "test", "n": 10000, "sha256": SHA["test"],
        "range": [0, 255],
    },
    "real": {"dataset": "fashion_mnist", "split": "train", "n": 60000, "sha256": SHA["train"]},
    "weights": {
        "run": "outputs/train/a/v001", "step": 100, "name": "ema", "ema": True, "decay": 0.999,
        "half_life": 88684.9, "sha256": SHA["weights"],
    },
    "sampler": {
        "choice": "ddim", "name": "ddim", "same_as": None, "options": {"eta": 0.0, "noise": 1.0},
        "grid": {"name": "uniform", "spacing": "trailing"}, "steps": 50, "nfe": 50.0,
        "start": "vp", "clip": "range", "guidance": None, "batch": 64, "label": None,
        "label_name": None, "reuse": {"name": "none"}, "noise_level": None,
    },
    "range": [-1.0, 1.0],
    "size": [28, 28],
    "seeds": {"seed": 0, "count": 1, "first": 0, "last": 2047},
    "settings": {"kid": {"subsets": 50, "size": 500}, "prdc": {"k": 5}},
    "dtype": "float32",
    "device": "a CPU, 1 thread",
    "threads": 1,
    "revision": "abc",
    "versions": {"torch": "2.11"},
    "seconds": 1.0,
    "images_per_second": 100.0,
    "command": "diffuse eval",
    "floor_n": 2048,
}  # fmt: skip
