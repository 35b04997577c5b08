"""A model on disk, in the folder format of diffusers' Stable Diffusion pipelines. Read without torch.

Only safetensors weights are accepted: the older `.bin` files are pickles, which run code when read.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from generator_service.hub import find_folder
from protocol.errors import UserError

EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "model"
TINY_DECODER, TINY_DECODER_FOLDER = "embedded-tiny", Path(__file__).parent / "embedded" / "tiny_decoder"
"""What `generator.decoder` may name without a folder: a smaller decoder of the embedded model's latents."""
PIPELINES = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline", "StableDiffusionXLPipeline")
"""Those whose loop the sampler has."""
XL = "StableDiffusionXLPipeline"

_VAES = ("AutoencoderKL", "AutoencoderTiny")
_CLASSES = {
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "vae": _VAES,
}
_XL_CLASSES = _CLASSES | {
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_STEM = "diffusion_pytorch_model"
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder that is used instead of the model's own."""

    path: Path
    vae_class: str


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank weights that are added to the model's, `scale` times."""

    path: Path
    scale: float


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder that was checked to hold every component that drawing needs."""

    path: Path
    pipeline: str
    vae_class: str
    scheduler_config: dict[str, Any]
    """`scheduler/scheduler_config.json` as its pipeline reads it."""
    zero_negative: bool
    """Whether an empty negative prompt is zeros and not the embedding of the empty text (SDXL)."""
    decoder: Decoder | None = None
    loras: tuple[Lora, ...] = ()

    @property
    def is_xl(self) -> bool:
        """Whether it has two text encoders, and a UNet that reads pooled text and sizes."""
        return self.pipeline == XL

    def files(self) -> list[tuple[str, Path]]:
        """Every file that pixels depend on, under its name inside the model; sorted by name."""
        found = [self.path / "scheduler" / "scheduler_config.json"]
        for component in _XL_CLASSES if self.is_xl else _CLASSES:
            folder = self.path / component
            if component.startswith("tokenizer"):
                found += [file for file in folder.iterdir() if file.suffix in {".json", ".txt"}]
            elif component != "vae" or self.decoder is None:
                found += [folder / "config.json", *_weight_files(folder, _stem_of(component))]
        named = [(file.relative_to(self.path).as_posix(), file) for file in found]
        if self.decoder is not None:
            files = [self.decoder.path / "config.json", *_weight_files(self.decoder.path, _STEM)]
            named += [(f"decoder/{file.name}", file) for file in files]
        named += [(f"lora/{i}/{lora.scale!r}", lora.path) for i, lora in enumerate(self.loras)]
        return sorted(named)

    def weights_digest(self) -> str:
        """xxh3-128 over name, size and bytes of `files`, 32 hex digits. Reads every weight once."""
        digest = xxhash.xxh3_128()
        for text, file in self.files():
            name = text.encode()
            digest.update(b"%d:%s%d:" % (len(name), name, file.stat().st_size))
            for chunk in _chunks(file):
                digest.update(chunk)
        return digest.hexdigest()


def open_model_folder(
    model: str, decoder: str = "", loras: Sequence[str] = (), lora_scales: Sequence[float] = ()
) -> ModelFolder:
    """What `generator.model`, `decoder`, `loras` and `lora_scales` name. Raises UserError naming the first
    thing that is missing."""
    path = EMBEDDED_FOLDER if model == "embedded" else find_folder(model, "generator.model")
    index = read_json(path / "model_index.json")
    pipeline = str(index.get("_class_name"))
    if pipeline not in PIPELINES:
        raise _refusal("unknown pipeline", " or ".join(PIPELINES), pipeline, str(path / "model_index.json"))
    for component, classes in (_XL_CLASSES if pipeline == XL else _CLASSES).items():
        _check_component(path, component, classes, index.get(component))
    scheduler_config = read_json(path / "scheduler" / "scheduler_config.json")
    if pipeline == "StableDiffusionPipeline":
        scheduler_config |= {"steps_offset": 1}  # what that pipeline makes of every scheduler that it loads
    return ModelFolder(
        path=path,
        pipeline=pipeline,
        vae_class=index["vae"][1],
        scheduler_config=scheduler_config,
        zero_negative=pipeline == XL and bool(index.get("force_zeros_for_empty_prompt", True)),
        decoder=_open_decoder(decoder) if decoder else None,
        loras=_open_loras(loras, lora_scales),
    )


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refusal("file missing", file.name, str(error.strerror), str(file)) from error
    except ValueError as error:
        raise _refusal("file unreadable", "JSON", str(error), str(file)) from error
    if not isinstance(value, dict):
        raise _refusal("file unreadable", "a JSON object", type(value).__name__, str(file))
    return value


def _open_decoder(decoder: str) -> Decoder:
    path = TINY_DECODER_FOLDER if decoder == TINY_DECODER else find_folder(decoder, "generator.decoder")
    vae_class = str(read_json(path / "config.json").get("_class_name"))
    if vae_class not in _VAES:
        raise _refusal("unknown decoder", " or ".join(_VAES), vae_class, str(path / "config.json"))
    _check_weights(path, _STEM)
    return Decoder(path=path, vae_class=vae_class)


def _open_loras(loras: Sequence[str], scales: Sequence[float]) -> tuple[Lora, ...]:
    if scales and len(scales) != len(loras):
        raise UserError(
            "a scale for each LoRA, or none",
            expected=str(len(loras)),
            got=str(len(scales)),
            where="generator.lora_scales",
            mend="give as many as generator.loras, or leave them out",
        )
    for lora in loras:
        if not lora.endswith(".safetensors") or not Path(lora).is_file():
            got = "another kind of file" if Path(lora).is_file() else "none"
            raise UserError(
                "no such LoRA",
                expected="a .safetensors file on this machine",
                got=got,
                where=lora,
                mend="check generator.loras",
            )
    paired = zip(loras, scales or [1.0] * len(loras), strict=True)
    return tuple(Lora(path=Path(lora), scale=scale) for lora, scale in paired)


def _check_component(path: Path, component: str, classes: tuple[str, ...], entry: Any) -> None:
    name = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
    if name not in classes:
        raise _refusal(
            f"unknown {component}", " or ".join(classes), str(name), str(path / "model_index.json")
        )
    folder = path / component
    if component.startswith("tokenizer"):
        whole = (folder / "tokenizer.json").is_file()
        if not whole and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
            raise _refusal(
                "no tokenizer", "tokenizer.json, or vocab.json and merges.txt", "neither", str(folder)
            )
        return
    read_json(folder / "config.json")
    _check_weights(folder, _stem_of(component))


def _check_weights(folder: Path, stem: str) -> None:
    if not any(file.suffix == ".safetensors" for file in _weight_files(folder, stem)):
        others = sorted(file.name for file in folder.iterdir() if file.suffix in {".bin", ".safetensors"})
        got = ", ".join(others) or "no weights"
        raise _refusal("weights missing", f"{stem}.safetensors", got, str(folder))


def _stem_of(component: str) -> str:
    return "model" if component.startswith("text_encoder") else _STEM


def _weight_files(folder: Path, stem: str) -> list[Path]:
    """The files the loaders read: one, or shards with their index. Variants such as fp16 are not loaded."""
    shards = [*folder.glob(f"{stem}-*-of-*.safetensors"), *folder.glob(f"{stem}.safetensors.index.json")]
    single = folder / f"{stem}.safetensors"
    return [single] if single.is_file() else shards


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _refusal(what: str, expected: str, got: str, where: str) -> UserError:
    mend = (
        "give generator.model as `embedded` or a folder that save_pretrained(safe_serialization=True) wrote"
    )
    return UserError(what, expected=expected, got=got, where=where, mend=mend)
