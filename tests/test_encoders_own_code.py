"""An encoder of one's own is known by its code: all of its files, whoever imports them."""

import sys
import textwrap

from diffuse import config
from diffuse.data import ImageSpec
from diffuse.encoders import open_encoder

SPEC = ImageSpec("photos", 1, 8, 8, 8, 8, "none", ())


def test_code_beside_it_counts_however_it_is_imported(tmp_path, monkeypatch):
    home = tmp_path / "my_code/inner"
    home.mkdir(parents=True)
    (tmp_path / "my_code/__init__.py").write_text("")
    (home / "__init__.py").write_text("")
    net = """
        from torch import nn
        from ..pooling import pool

        class Net(nn.Module):
            range = (0, 1)

            def forward(self, x):
                import my_constants
                return my_constants.GAIN * pool(x)
    """
    (home / "net.py").write_text(textwrap.dedent(net))
    pooling, constants = tmp_path / "my_code/pooling.py", tmp_path / "my_constants.py"
    pooling.write_text("def pool(x):\n    return x.mean((2, 3))\n")
    constants.write_text("GAIN = 1")
    (tmp_path / "unrelated.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    config.trust("my_code")
    try:
        opened = [open_encoder({"name": "my_code.inner.net:Net"}, SPEC).sha256]
        for file in (pooling, constants, tmp_path / "unrelated.py"):
            file.write_text(file.read_text() + "# changed\n")
            opened.append(open_encoder({"name": "my_code.inner.net:Net"}, SPEC).sha256)
        assert len(set(opened)) == 3
        assert opened[2] == opened[3]
    finally:
        config.trust(None)
        for name in ("my_code", "my_code.inner", "my_code.inner.net", "my_code.pooling"):
            sys.modules.pop(name, None)
        sys.modules.pop("my_constants", None)
