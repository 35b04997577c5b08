"""The encoder that is judged: of a finished run, or any saved folder of a vision model.

Shapes: N images, S x S pixels, F features, T texts, D the dimension in which texts and images are compared.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from protocol.errors import UserError
from trainer.augment import normalise
from trainer.encoder import build_encoder
from trainer.image_text_folder import FOLDER, ImageTextFolder, load_image_text

DEFAULT_SIZE = 224
_CHUNK = 2**22


class Subject:
    """Holds the weights on a device; nothing of it is trained."""

    def __init__(self, target: Path, device: torch.device, dtype: torch.dtype, image_size: int = 0) -> None:
        """`target` is a run folder or an encoder's. Without `image_size` it is what the encoder was built or
        trained for. Raises UserError."""
        folder = target / "encoder" if (target / "run.json").is_file() else target
        if not (folder / "config.json").is_file():
            raise UserError(
                "no encoder",
                expected="a finished run, or a folder that transformers' save_pretrained wrote",
                got="no config.json in it",
                where=str(folder),
                mend="finish the run first: it saves its encoder at its last step",
            )
        self.home = target
        """Where results go."""
        self.folder = folder
        self.image_size = image_size or _trained_size(target) or _built_size(folder) or DEFAULT_SIZE
        self._encoder = build_encoder({"folder": str(folder)}, self.image_size, 0).to(device).eval()
        self._device, self._dtype = device, dtype
        self.text: ImageTextFolder | None = None
        if (folder / FOLDER).is_dir():
            self.text = load_image_text(folder / FOLDER, device)
        self.dim = self._encoder.dim
        self.digest = digest_folder(folder, f"{self.image_size}:{dtype}")
        """Of the weights, their config, the size and the arithmetic: what features depend on."""

    @torch.no_grad()
    def encode(self, images_NHWC: Tensor) -> Tensor:
        """uint8 [N, S, S, 3] -> float32 [N, F] on the device."""
        images_NCHW = normalise(images_NHWC.to(self._device, non_blocking=True))
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            features_NF: Tensor = self._encoder(images_NCHW)
        return features_NF.float()

    @torch.no_grad()
    def texts(self, captions: Sequence[str], batch: int = 256) -> Tensor:
        """float32 [T, D], of unit length. Raises UserError where the encoder has no text tower."""
        tower = self._tower()
        chunks = [captions[start : start + batch] for start in range(0, len(captions), batch)]
        return torch.cat([tower.texts(chunk) for chunk in chunks])

    @torch.no_grad()
    def images(self, features_NF: Tensor) -> Tensor:
        """float32 [N, D], of unit length: features in the space of texts. Raises UserError."""
        return self._tower().images(features_NF.to(self._device))

    def _tower(self) -> ImageTextFolder:
        if self.text is None:
            raise UserError(
                "no text tower",
                expected='an encoder of a run with train.objective = "stablerep+" or "clip"',
                got=f"no {FOLDER} in the folder",
                where=str(self.folder),
                mend="leave out --kind zeroshot",
            )
        return self.text


def digest_folder(folder: Path, extra: str) -> str:
    """xxh3 of the weights and the config, whatever the folder is called."""
    digest = xxhash.xxh3_64(extra.encode())
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _trained_size(target: Path) -> int:
    """`augment.crop_size` of the run that the encoder is of."""
    for run_json in (target / "run.json", target.parent / "run.json"):
        if run_json.is_file():
            return int(json.loads(run_json.read_text("utf-8"))["augment"]["crop_size"])
    return 0


def _built_size(folder: Path) -> int:
    size = json.loads((folder / "config.json").read_text("utf-8")).get("image_size", 0)
    return size if isinstance(size, int) else 0
