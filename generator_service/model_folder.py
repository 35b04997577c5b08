"""A model on disk, in the folder format of diffusers' StableDiffusionPipeline. Read without torch.

Only safetensors weights are accepted: the older `.bin` files are pickles, which run code when read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from protocol.errors import UserError

EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "model"

_CLASSES = {
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
}
_WEIGHT_STEMS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder that was checked to hold every component that drawing needs."""

    path: Path
    vae_class: str
    scheduler_config: dict[str, Any]
    """`scheduler/scheduler_config.json` as it stands."""

    def files(self) -> list[Path]:
        """Every file that pixels depend on, sorted by its path inside the folder."""
        found = [self.path / "scheduler" / "scheduler_config.json"]
        for component, stem in _WEIGHT_STEMS.items():
            folder = self.path / component
            found += [folder / "config.json", *_weight_files(folder, stem)]
        found += [file for file in (self.path / "tokenizer").iterdir() if file.suffix in {".json", ".txt"}]
        return sorted(found, key=lambda file: file.relative_to(self.path).as_posix())

    def weights_digest(self) -> str:
        """xxh3-128 over path, size and bytes of `files`, 32 hex digits. Reads every weight once."""
        digest = xxhash.xxh3_128()
        for file in self.files():
            name = file.relative_to(self.path).as_posix().encode()
            digest.update(b"%d:%s%d:" % (len(name), name, file.stat().st_size))
            for chunk in _chunks(file):
                digest.update(chunk)
        return digest.hexdigest()


def open_model_folder(model: str) -> ModelFolder:
    """The folder that `generator.model` names. Raises UserError naming the first thing that is missing."""
    path = EMBEDDED_FOLDER if model == "embedded" else Path(model)
    if not path.is_dir():
        raise _refusal("no such folder", "a folder on this machine in diffusers' format", "none", str(path))
    index = _read_json(path / "model_index.json")
    if index.get("_class_name") != "StableDiffusionPipeline":
        where = str(path / "model_index.json")
        raise _refusal("unknown pipeline", "StableDiffusionPipeline", str(index.get("_class_name")), where)
    for component, classes in _CLASSES.items():
        _check_component(path, component, classes, index.get(component))
    return ModelFolder(
        path=path,
        vae_class=index["vae"][1],
        scheduler_config=_read_json(path / "scheduler" / "scheduler_config.json"),
    )


def _check_component(path: Path, component: str, classes: tuple[str, ...], entry: Any) -> None:
    name = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
    if name not in classes:
        raise _refusal(
            f"unknown {component}", " or ".join(classes), str(name), str(path / "model_index.json")
        )
    folder = path / component
    if component == "tokenizer":
        whole = (folder / "tokenizer.json").is_file()
        if not whole and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
            raise _refusal(
                "no tokenizer", "tokenizer.json, or vocab.json and merges.txt", "neither", str(folder)
            )
        return
    _read_json(folder / "config.json")
    stem = _WEIGHT_STEMS[component]
    if not any(file.suffix == ".safetensors" for file in _weight_files(folder, stem)):
        others = sorted(file.name for file in folder.iterdir() if file.suffix in {".bin", ".safetensors"})
        got = ", ".join(others) or "no weights"
        raise _refusal("weights missing", f"{stem}.safetensors", got, str(folder))


def _weight_files(folder: Path, stem: str) -> list[Path]:
    """The files the loaders read: one, or shards with their index. Variants such as fp16 are not loaded."""
    shards = [*folder.glob(f"{stem}-*-of-*.safetensors"), *folder.glob(f"{stem}.safetensors.index.json")]
    single = folder / f"{stem}.safetensors"
    return [single] if single.is_file() else shards


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refusal("file missing", file.name, str(error.strerror), str(file)) from error
    except ValueError as error:
        raise _refusal("file unreadable", "JSON", str(error), str(file)) from error
    if not isinstance(value, dict):
        raise _refusal("file unreadable", "a JSON object", type(value).__name__, str(file))
    return value


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _refusal(what: str, expected: str, got: str, where: str) -> UserError:
    mend = (
        "give generator.model as `embedded` or a folder that save_pretrained(safe_serialization=True) wrote"
    )
    return UserError(what, expected=expected, got=got, where=where, mend=mend)
