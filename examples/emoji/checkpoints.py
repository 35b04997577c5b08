"""Training state on disk as safetensors and JSON, replaced whole by a rename.

folder/modules.NAME.safetensors   every module's weights
folder/optimizer.safetensors      AdamW's moments, keyed INDEX.MOMENT
folder/state.json                 the step and whatever else a training loop counts
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_checkpoint(
    folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write a checkpoint beside `folder`, then swap it in."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, module in modules.items():
        tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_file(tensors, temporary / f"modules.{name}.safetensors")
    moments: dict[str, Tensor] = {}
    for index, entry in optimizer.state_dict()["state"].items():
        moments |= {f"{index}.{key}": value.contiguous() for key, value in entry.items()}
    save_file(moments, temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def load_checkpoint(
    folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Fill modules and optimizer from `folder` and return its state."""
    for name, module in modules.items():
        module.load_state_dict(load_file(folder / f"modules.{name}.safetensors"))
    if optimizer is not None:
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(folder / "optimizer.safetensors").items():
            index, moment = key.split(".", 1)
            entries.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))
