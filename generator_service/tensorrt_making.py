"""The `tensorrt` engine: ONNX files in an entry of the cache of their own, and a plan of each for a device.

torch.export → ONNX (on a CPU) → plan, by `tensorrt` or `tensorrt_rtx` → Forward

Built and parsed on machines without a GPU. Never executed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from generator_service.build_progress import BuildProgress
from generator_service.devices import device_name
from generator_service.engine import Abandoned
from generator_service.engine_cache import EngineCache
from generator_service.making import Making
from generator_service.onnx_export import NETWORKS, export_networks, onnx_making_recipe
from generator_service.plan_builder import build_plan, check_capability
from generator_service.recipes import Workload
from generator_service.tensorrt_forward import TensorRtForward, check_device
from generator_service.tensorrt_package import WHERE, Capability, TensorRt, import_packages
from protocol.identity import digest_of


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of device, and the package that builds for it."""

    tensorrt: TensorRt
    capability: Capability

    def recipe(self, work: Workload) -> dict[str, Any]:
        """All that the plans depend on."""
        onnx = onnx_making_recipe(work)
        major, minor = self.capability
        anywhere = bool(self.tensorrt.offered)
        return {
            "engine": "tensorrt",
            "weights": work.weights,
            "unet": onnx["unet"],
            "decoder": onnx["decoder"],
            "onnx": digest_of(onnx),
            "device": f"sm_{major}{minor}" if anywhere else device_name(work.model.device),
            "capability": [major, minor],
            "builder": {"package": self.tensorrt.package, "version": self.tensorrt.version},
        }


def target_here(work: Workload, cache: EngineCache) -> Target:
    """The workload's own device: with the package that has built for it, else the preferred one.

    Raises UserError where there is neither GPU nor package, or none that builds for this GPU.
    """
    device = work.model.device
    check_device(device, WHERE)
    capability = torch.cuda.get_device_capability(device)
    targets = [Target(tensorrt=found, capability=capability) for found in import_packages()]
    able = [
        target for target in targets if not target.tensorrt.offered or capability in target.tensorrt.offered
    ]
    if not able:
        check_capability(targets[0].tensorrt, capability)
    return next((target for target in able if cache.find(target.recipe(work)) is not None), able[0])


def tensorrt_making(
    work: Workload, target: Target, cache: EngineCache, abandoned: Abandoned, say: Callable[[str], None]
) -> Making:
    """See `Making`. The ONNX files are made as well where the cache has none."""
    onnx = onnx_making_recipe(work)

    def build(folder: Path) -> None:
        source, _ = cache.make(onnx, lambda aside: export_networks(work, aside, say), abandoned)
        for name in NETWORKS:
            what = f"{target.tensorrt.package}: {name} for {target.capability[0]}.{target.capability[1]}"
            with BuildProgress(say, what) as progress:
                files = (source / f"{name}.onnx", folder / f"{name}.plan")
                build_plan(target.tensorrt, *files, target.capability, abandoned, progress)

    return Making(
        recipe=target.recipe(work),
        build=build,
        load=lambda folder: TensorRtForward(target.tensorrt, folder, work.model.device),
    )
