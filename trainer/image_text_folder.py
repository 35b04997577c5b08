"""What lies beside the encoder of a run that was trained with captions: its text tower and image projection.

    encoder/image_text/
      config.json, model.safetensors   the text tower: CLIPTextModelWithProjection.from_pretrained
      tokenizer.json, ...              AutoTokenizer.from_pretrained
      projection.safetensors           [D, F] `weight` of the encoder's features, `log_scale`

With `train.export = "ema"` it is of the averaged weights, as the encoder beside it is.

Shapes: N images, F features, T texts, D the dimension in which they are compared.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from protocol.errors import UserError

FOLDER = "image_text"
_PROJECTION = "projection.safetensors"


class ImageTextFolder:
    """Compares images with texts."""

    def __init__(self, tower: torch.nn.Module, projection_DF: Tensor) -> None:
        self._tower = tower
        self._projection_DF = projection_DF

    def texts(self, captions: Sequence[str]) -> Tensor:
        """float32 [T, D], of unit length."""
        return functional.normalize(self._tower(list(captions)).float(), dim=1)

    def images(self, features_NF: Tensor) -> Tensor:
        """float32 [N, D], of unit length."""
        return functional.normalize(features_NF.float() @ self._projection_DF.T, dim=1)


def save_projection(folder: Path, weight_DF: Tensor, log_scale: Tensor) -> None:
    """Writes the projection of a tower that was saved to the same folder."""
    tensors = {"weight": weight_DF, "log_scale": log_scale}
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / _PROJECTION
    )


def load_image_text(folder: Path, device: torch.device) -> ImageTextFolder:
    """Raises UserError for a folder that is not whole."""
    # Imported where it is used: most encoders have no text tower, and transformers takes seconds to load one.
    from trainer.text_tower import load_text_tower

    try:
        tower = load_text_tower(folder)
        projection_DF = load_file(folder / _PROJECTION)["weight"].to(device)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            "no text tower",
            expected=f"config.json, model.safetensors, a tokenizer and {_PROJECTION}",
            got=str(error).splitlines()[0],
            where=str(folder),
            mend="remove that folder to judge the encoder alone, or save it again",
        ) from error
    return ImageTextFolder(tower.to(device).eval(), projection_DF)
