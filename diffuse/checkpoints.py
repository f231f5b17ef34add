"""Checkpoints: folders of safetensors and JSON that appear whole or not at all.

checkpoints/step_00000500/  model.safetensors  ema.safetensors  optimizer.safetensors  state.json
                            MANIFEST.json (size and sha256 of each, written last)
checkpoints/latest          a link to the one saved last
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffuse import files
from diffuse.errors import DataError
from diffuse.owners import alive

if TYPE_CHECKING:  # torch is slow to import, and `runs` only asks which checkpoints there are
    from torch import Tensor

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
OURS = re.compile(r"model|optimizer|ema(_0\.\d+)?")  # our files of tensors: others may lie beside


def save(folder: Path, step: int, tensors: dict[str, dict[str, "Tensor"]], state: Any) -> Path:
    """Write folder/step_<step>: temporary folder, fsync, manifest last, rename, fsync parents.

    Only then `latest` points to it. A step that has a whole checkpoint already keeps it. Raises
    NoSpaceError naming the path and the bytes; what was saved before is untouched.
    """
    from safetensors.torch import save as to_bytes

    final = at(folder, step)
    if _is_whole(final):
        _point_to(final)  # a kill may have come between the two
        return final
    contents = {f"{name}.safetensors": to_bytes(_contiguous(t)) for name, t in tensors.items()}
    contents["state.json"] = json.dumps(state, indent=1).encode()
    manifest = {
        n: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in contents.items()
    }
    contents[MANIFEST] = json.dumps(manifest, indent=1).encode()
    temporary = folder / f".tmp-{final.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with files.room_for(final, sum(map(len, contents.values()))):
            temporary.mkdir(parents=True)
            for name, content in contents.items():
                with open(temporary / name, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            files.sync_folder(temporary)
            if os.path.lexists(final):  # a damaged one that training passed again
                _remove(final)
            os.rename(temporary, final)
            _point_to(final)
    except BaseException:  # a signal that stops the command, too
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def _point_to(final: Path) -> None:
    """`latest` leads to a checkpoint; each name on the way outlasts a power cut before the next."""
    folder = final.parent
    files.sync_folder(folder)
    if not (folder / "latest").is_symlink():
        files.sync_folder(folder.parent)  # where `folder` is new
    files.point(folder / "latest", final.name)
    files.sync_folder(folder)


def _contiguous(tensors: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """On the CPU, each with memory of its own: tied weights are written twice."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        found[name] = own.clone() if place in taken else own
        taken.add(place)
    return found


def verify(path: Path) -> None:
    """Raise DataError, naming the file, unless every file of a checkpoint is as it was written."""
    for name, (size, digest) in _manifest(path).items():
        try:
            content = (path / name).read_bytes()
        except OSError as e:
            raise DataError(f"{path / name} cannot be read: {e.strerror}") from None
        if len(content) != size:
            raise DataError(f"{path / name} has {len(content):,} bytes instead of {size:,}")
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(f"{path / name} is damaged: its sha256 is not the one in {MANIFEST}")


def _manifest(path: Path) -> dict[str, tuple[int, str]]:
    """File -> bytes and sha256. One flipped bit can make it any text, and any text is refused.

    One that makes a name into another's, too: no name is twice in it, no file of ours is not.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(), object_pairs_hook=_once)
        found = {name: (int(of["bytes"]), of["sha256"]) for name, of in manifest.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = {}
    if "state.json" not in found:
        raise DataError(f"{path} is not a whole checkpoint: no readable {MANIFEST}")
    ours = {p.name for p in path.glob("*.safetensors") if OURS.fullmatch(p.stem)}
    if unknown := sorted(ours - {*found}):
        raise DataError(f"{path / unknown[0]} is not in {MANIFEST}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, ValueError if it has a name twice."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands there twice")
    return dict(pairs)


def _is_whole(path: Path) -> bool:
    try:
        verify(path)
    except DataError:
        return False
    return True


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, damaged or not, in order."""
    return sorted(int(p.name[5:]) for p in folder.glob("step_*") if p.name[5:].isdigit())


def newest(folder: Path, wanted: Callable[[int], bool] = lambda step: True) -> Path | None:
    """The newest checkpoint that is whole: damaged ones are passed over with a warning.

    Of all steps, or of those that are `wanted`. One that its training deletes while it is looked at
    is not damaged: there is a newer one by then.
    """
    damaged: set[int] = set()
    while left := [step for step in steps(folder) if wanted(step) and step not in damaged]:
        path = at(folder, left[-1])
        try:
            verify(path)
        except DataError as e:
            if os.path.lexists(path):
                log.warning("%s; looking for an older checkpoint", e)
                damaged.add(left[-1])
            continue
        return path
    return None


def at(folder: Path, step: int) -> Path:
    """The folder of a step's checkpoint, whether or not there is one."""
    return folder / f"step_{step:08d}"


def load_tensors(path: Path, name: str) -> dict[str, "Tensor"]:
    """One file of tensors of a checkpoint that `verify` has passed."""
    from safetensors.torch import load_file

    return load_file(path / f"{name}.safetensors")


def sha256(path: Path, name: str) -> str:
    """The sha256 of one file of tensors, as `save` wrote it down."""
    manifest = json.loads((path / MANIFEST).read_text())
    return manifest[f"{name}.safetensors"]["sha256"]


def digest(path: Path) -> str:
    """sha256 of the list of a checkpoint's files, which has those of all of them."""
    return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()


def load_state(path: Path) -> Any:
    """state.json of a checkpoint that `verify` has passed."""
    return json.loads((path / "state.json").read_text())


def purge(
    folder: Path,
    keep: int,
    protect: Iterable[int] = (),
    multiple: int | None = None,
    now: int | None = None,
) -> None:
    """Delete all but the newest `keep` checkpoints and the protected ones, and dead temporaries.

    With `multiple`, those whose step is a multiple of it are protected, too. Those after the step
    `now` are damaged, or training would have gone on from them: they count for nothing.
    """
    there = steps(folder)
    good = [step for step in there if now is None or step <= now]
    spared = {*good[-keep:], *protect}
    spared |= {step for step in good if multiple and step % multiple == 0}
    _delete(folder, [step for step in there if step not in spared])


def forget(folder: Path, after: int) -> None:
    """Delete the checkpoints after a step that training goes back to: it goes on another way."""
    if at(folder, after).exists():
        _point_to(at(folder, after))
    _delete(folder, [step for step in steps(folder) if step > after])


def _delete(folder: Path, gone: Iterable[int]) -> None:
    for step in gone:  # renamed first: a kill leaves no half of one under its name
        os.rename(at(folder, step), old := folder / f".tmp-old-{step}-{os.getpid()}")
        _remove(old)
    tidy(folder)


def _remove(path: Path) -> None:
    """A checkpoint; where it was moved away and linked to only the link, or a file in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Delete what a process that was killed had begun to write or to delete.

    In a container it had our number.
    """
    for temporary in folder.glob(".tmp-*"):
        pid = temporary.name.rsplit("-", 1)[1]
        if pid.isdigit() and (int(pid) == os.getpid() or not alive(int(pid))):
            _remove(temporary)


def pack(state: Any, tensors: dict[str, "Tensor"], path: str = "") -> Any:
    """A nested optimizer state as JSON; its tensors go into `tensors`, by their path."""
    if isinstance(state, dict):
        return {str(k): pack(v, tensors, f"{path}/{k}") for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return [pack(v, tensors, f"{path}/{i}") for i, v in enumerate(state)]
    if hasattr(state, "numel"):
        tensors[path] = state
        return {"$tensor": path}
    return state


def unpack(packed: Any, tensors: dict[str, "Tensor"]) -> Any:
    """The inverse of `pack`: whole numbers among the keys become ints again."""
    if isinstance(packed, dict):
        if set(packed) == {"$tensor"}:
            return tensors[packed["$tensor"]]
        return {int(k) if k.isdigit() else k: unpack(v, tensors) for k, v in packed.items()}
    if isinstance(packed, list):
        return [unpack(v, tensors) for v in packed]
    return packed
