"""Plans for devices that are not here: `streamrep engine build --compute-capability`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from generator_service.config import GeneratorConfig
from generator_service.devices import resolve_dtype
from generator_service.engine import Abandoned, groups_of
from generator_service.engine_cache import EngineCache
from generator_service.families import load_family
from generator_service.model_folder import open_model_folder
from generator_service.plan_builder import check_capability
from generator_service.recipes import Workload
from generator_service.sampler import Sampler
from generator_service.tensorrt_making import Target, tensorrt_making
from generator_service.tensorrt_package import Capability, import_packages
from protocol.generation import GenerationSpec


def build_plans_ahead(
    config: GeneratorConfig,
    spec: GenerationSpec,
    capabilities: Sequence[Capability],
    abandoned: Abandoned,
    say: Callable[[str], None],
) -> list[Path]:
    """The folders of engines that workers with this run file and such devices will find in the cache.

    Raises UserError, before anything is built where a capability can't be had; DrawAbandonedError.
    """
    packages = import_packages()
    tensorrt = next((package for package in packages if package.offered), packages[0])
    for capability in capabilities:
        check_capability(tensorrt, capability)
    folder = open_model_folder(config.model, config.decoder, config.loras, config.lora_scales)
    weights = folder.weights_digest()
    dtype = resolve_dtype(config.precision, torch.device("cuda"))
    model = load_family(folder, device=torch.device("cpu"), dtype=dtype)
    groups = groups_of(config.batch_images, spec)
    Sampler(model, spec, groups=groups)  # refuses what can't be drawn
    work = Workload(model=model, weights=weights, spec=spec, images=groups * spec.views)
    cache = EngineCache(Path(config.engine_cache))
    built = []
    for capability in capabilities:
        target = Target(tensorrt=tensorrt, capability=capability)
        making = tensorrt_making(work, target, cache, abandoned, say)
        built.append(cache.make(making.recipe, making.build, abandoned)[0])
    return built
