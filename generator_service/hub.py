"""Where a model lies: a folder of this machine, or what a name on the Hugging Face hub is downloaded to.

Only JSON, tokenizer text and safetensors are asked for; a repository's pickled weights and code stay there.
"""

import re
from pathlib import Path

from protocol.errors import UserError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = ("model", "diffusion_pytorch_model")
_PATTERNS = [
    "*.json",
    "*/*.json",
    "*/*.txt",
    "*/*.model",
    *(f"{stem}{shard}.safetensors" for stem in _WEIGHTS for shard in ("", "-?????-of-?????")),
    *(f"*/{stem}{shard}.safetensors" for stem in _WEIGHTS for shard in ("", "-?????-of-?????")),
]
"""The files that diffusers' loaders read. Variants such as `model.fp16.safetensors` are not among them."""


def find_folder(name: str, where: str) -> Path:
    """The folder that a setting (`where`) names: a path, else owner/name on the hub, by way of its cache.

    Raises UserError when it is neither, or the hub is not reached and the cache has it not.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists() or not HUB_NAME.fullmatch(name):
        raise _refusal(name, where, "a file" if path.exists() else "none")
    # Heavy, and needed for names of the hub only.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        lines = str(error).splitlines()
        raise _refusal(name, where, lines[0] if lines else type(error).__name__) from error


def _refusal(name: str, where: str, got: str) -> UserError:
    return UserError(
        "no such folder",
        expected="a folder on this machine in diffusers' format, or owner/name on a hub that can be reached",
        got=got,
        where=name,
        mend=f"check {where}",
    )
