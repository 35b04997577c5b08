"""Which package serves a GPU, decided without one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from generator_service import tensorrt_making
from generator_service.engine_cache import EngineCache
from generator_service.families import load_family
from generator_service.model_folder import open_model_folder
from generator_service.recipes import Workload
from generator_service.tensorrt_making import Target, target_here
from generator_service.tensorrt_package import TensorRt
from protocol.errors import UserError
from protocol.generation import GenerationSpec

SPEC = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(1.0, 3.0))
FULL = TensorRt(package="tensorrt", module=SimpleNamespace(__version__="11.0"))
RTX = TensorRt(
    package="tensorrt_rtx",
    module=SimpleNamespace(
        __version__="1.7", ComputeCapability=SimpleNamespace(__members__=["NONE", "CURRENT", "SM89", "SM120"])
    ),
)


@pytest.fixture
def work(distilled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """On a device that is taken for a GPU of capability 8.9."""
    monkeypatch.setattr(tensorrt_making, "check_device", lambda device, where: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    opened = open_model_folder(str(distilled_folder))
    model = load_family(opened, device=torch.device("cpu"), dtype=torch.float32)
    return Workload(model=model, weights="w", spec=SPEC, images=2)


def test_the_package_that_has_built_is_taken(
    work: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The full one is preferred until the other has a plan in the cache."""
    monkeypatch.setattr(tensorrt_making, "import_packages", lambda: (FULL, RTX))
    cache = EngineCache(tmp_path / "engines")
    assert target_here(work, cache).tensorrt is FULL
    ahead = Target(tensorrt=RTX, capability=(8, 9)).recipe(work)
    cache.make(ahead, lambda folder: None, lambda: False)
    assert target_here(work, cache).tensorrt is RTX


def test_plans_of_another_version_package_or_capability_have_other_keys(work: Workload) -> None:
    """And so have those of another static batch."""
    newer = TensorRt(
        package="tensorrt_rtx", module=SimpleNamespace(**vars(RTX.module) | {"__version__": "1.8"})
    )
    targets = [
        Target(tensorrt=found, capability=capability)
        for found in (FULL, RTX, newer)
        for capability in ((8, 9), (12, 0))
    ]
    keys = [str(target.recipe(work)) for target in targets]
    larger = Workload(model=work.model, weights="w", spec=SPEC, images=4)
    assert len({*keys, str(targets[0].recipe(larger))}) == 7
    assert targets[2].recipe(work)["device"] == "sm_89"


def test_a_gpu_that_no_package_builds_for_is_refused(
    work: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what there is."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(tensorrt_making, "import_packages", lambda: (RTX,))
    with pytest.raises(
        UserError, match=r"tensorrt_rtx 1\.7 does not build .*: expected 8\.9, 12\.0, got 9\.0"
    ):
        target_here(work, EngineCache(tmp_path))
