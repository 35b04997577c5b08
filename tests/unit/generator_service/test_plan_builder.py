"""Real plans by tensorrt_rtx, which builds them without a GPU for every compute capability that it offers."""

import platform
from pathlib import Path

import pytest
import torch

from generator_service.build_progress import BuildProgress
from generator_service.config import GeneratorConfig
from generator_service.engine_cache import EngineCache
from generator_service.errors import DrawAbandonedError
from generator_service.families import load_family
from generator_service.model_folder import open_model_folder
from generator_service.onnx_export import export_networks
from generator_service.plan_builder import build_plan
from generator_service.plans_ahead import build_plans_ahead
from generator_service.recipes import Workload
from generator_service.tensorrt_making import Target
from generator_service.tensorrt_package import TensorRt, import_packages
from protocol.errors import UserError
from protocol.generation import GenerationSpec

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="no tensorrt_rtx is packaged",
)

SPEC = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(1.0, 3.0))
EMBEDDED_SPEC = GenerationSpec(views=2, size=64, steps=1, sampler="ddim", guidance=(1.0,))


@pytest.fixture(scope="module")
def rtx() -> TensorRt:
    """The package under test."""
    return next(found for found in import_packages() if found.package == "tensorrt_rtx")


@pytest.fixture(scope="module")
def work(distilled_folder: Path) -> Workload:
    """A tiny model in float16."""
    model = load_family(
        open_model_folder(str(distilled_folder)), device=torch.device("cpu"), dtype=torch.float16
    )
    return Workload(model=model, weights="w", spec=SPEC, images=2)


@pytest.fixture(scope="module")
def onnx_folder(work: Workload, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its networks."""
    folder = tmp_path_factory.mktemp("onnx")
    export_networks(work, folder, lambda text: None)
    return folder


@pytest.fixture
def progress() -> BuildProgress:
    """Speaks to nobody."""
    return BuildProgress(lambda text: None, "plan")


@pytest.mark.timeout(900)
def test_the_embedded_model_is_built_for_every_capability(rtx: TensorRt, tmp_path: Path) -> None:
    """In the precision that such devices draw in, float16: other programs, with the weights in each. The ONNX
    files are made once for all."""
    assert (8, 9) in rtx.offered
    config = GeneratorConfig(engine="tensorrt", engine_cache=str(tmp_path / "engines"), batch_images=48)
    folders = build_plans_ahead(config, EMBEDDED_SPEC, rtx.offered, lambda: False, lambda text: None)
    engines = EngineCache(tmp_path / "engines").engines()
    (onnx,) = (folder for folder, built in engines if built.recipe["engine"] == "onnx")
    assert len(engines) == 1 + len(rtx.offered)
    for name in ("unet", "decoder"):
        plans = {(folder / f"{name}.plan").read_bytes() for folder in folders}
        assert len(plans) == len(rtx.offered)
        assert min(map(len, plans)) > (onnx / f"{name}.onnx").stat().st_size


@pytest.mark.timeout(300)
def test_plans_for_other_machines_are_found_by_their_workers(
    distilled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with such a device asks for the key that they were built under; a second build is none."""
    said: list[str] = []
    config = GeneratorConfig(
        engine="tensorrt", engine_cache=str(tmp_path), model=str(distilled_folder), batch_images=7
    )
    (folder,) = build_plans_ahead(config, SPEC, [(8, 9)], lambda: False, said.append)
    assert {file.name for file in folder.iterdir()} == {"engine.json", "unet.plan", "decoder.plan"}
    assert any(text.startswith("tensorrt_rtx: unet for 8.9: built in") for text in said)
    said.clear()
    assert build_plans_ahead(config, SPEC, [(8, 9)], lambda: False, said.append) == [folder]
    assert said == []
    opened = open_model_folder(str(distilled_folder))
    model = load_family(opened, device=torch.device("cpu"), dtype=torch.float16)
    model.unet.to(memory_format=torch.channels_last)  # as on CUDA
    work = Workload(model=model, weights=opened.weights_digest(), spec=SPEC, images=6)
    target = Target(tensorrt=import_packages()[-1], capability=(8, 9))
    monkeypatch.setattr("generator_service.recipes.memory_format_of", lambda *_: torch.channels_last)
    assert EngineCache(tmp_path).find(target.recipe(work)) == folder
    newer = Target(tensorrt=target.tensorrt, capability=(12, 0))
    assert EngineCache(tmp_path).find(newer.recipe(work)) is None


def test_an_unknown_capability_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    """With those that the package offers."""
    config = GeneratorConfig(engine="tensorrt", engine_cache=str(tmp_path / "engines"))
    with pytest.raises(UserError, match=r"does not build for this .*: expected 7\.5, .*8\.9, .*got 9\.0"):
        build_plans_ahead(config, SPEC, [(8, 9), (9, 0)], lambda: False, lambda text: None)
    assert not (tmp_path / "engines").exists()


def test_a_network_that_cannot_be_built_says_why(
    rtx: TensorRt, distilled_folder: Path, tmp_path: Path, progress: BuildProgress
) -> None:
    """The builder's first error for bfloat16 on a device without it, the parser's for a file that is none."""
    opened = open_model_folder(str(distilled_folder))
    model = load_family(opened, device=torch.device("cpu"), dtype=torch.bfloat16)
    export_networks(Workload(model=model, weights="w", spec=SPEC, images=2), tmp_path, lambda text: None)
    source, plan = tmp_path / "decoder.onnx", tmp_path / "decoder.plan"
    expected = (
        r"cannot build the plan: expected a network that it builds for compute capability 7\.5, got .*sm75"
    )
    with pytest.raises(UserError, match=expected):
        build_plan(rtx, source, plan, (7, 5), lambda: False, progress)
    source.write_bytes(b"no network")
    with pytest.raises(UserError, match=r"expected decoder\.onnx in operators that it knows, got .*arse"):
        build_plan(rtx, source, plan, (8, 9), lambda: False, progress)
    assert not plan.exists()


def test_a_build_can_be_left(
    rtx: TensorRt, onnx_folder: Path, tmp_path: Path, progress: BuildProgress
) -> None:
    """Between two of the builder's steps."""
    answers = iter([False] * 5)
    plan = tmp_path / "unet.plan"
    with pytest.raises(DrawAbandonedError):
        build_plan(rtx, onnx_folder / "unet.onnx", plan, (8, 9), lambda: next(answers, True), progress)
    assert not plan.exists()


def test_without_a_package_the_refusal_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And why each could not be had, whatever its import raised."""

    def fail(name: str) -> None:
        raise (ImportError("none") if name == "tensorrt" else OSError("libcuda.so: no such file"))

    monkeypatch.setattr("importlib.import_module", fail)
    wanted = (
        r"got tensorrt: none; tensorrt_rtx: libcuda\.so: no such file; pip install 'streamrep\[tensorrt\]' or"
    )
    with pytest.raises(UserError, match=wanted):
        import_packages()
