"""Every family with every sampler against the pipeline that diffusers has for it.

Tolerance in float32: at most 1 level of 255, and that only where rounding ties: on at most 1 in 1,000 values.
"""

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.utils._python_dispatch import TorchDispatchMode

from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.errors import NonFiniteError
from generator_service.families import StableDiffusion, load_family, memory_format_of
from generator_service.model_folder import open_model_folder
from generator_service.sampler import Sampler
from generator_service.schedules import SCHEDULERS
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.payload import ImagesNHWC

FAMILIES = ("sd1", "sd2", "sd-turbo", "sdxl", "sdxl-turbo")
CAPTIONS = ["a red dog", "flag of japan"]
SEEDS = [11, 12, 2**32 - 1, 14]
CPU = torch.device("cpu")


@functools.cache
def _model(folder: Path, dtype: torch.dtype = torch.float32) -> StableDiffusion:
    return load_family(open_model_folder(str(folder)), device=CPU, dtype=dtype)


@functools.cache
def _pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _spec(sampler: str, *guidance: float, **settings: Any) -> GenerationSpec:
    return GenerationSpec(
        **{"views": 2, "size": 16, "steps": 3, "sampler": sampler, "guidance": guidance} | settings
    )


def _sample(model: StableDiffusion, spec: GenerationSpec) -> ImagesNHWC:
    return (
        Sampler(model, spec, groups=2)
        .sample(CAPTIONS, SEEDS, [spec.guidance[0]] * 4, lambda: False)
        .images_NHWC
    )


def _redraw(pipeline: Any, spec: GenerationSpec) -> ImagesNHWC:
    """The batch as any user of diffusers would draw it."""
    kind, fixed = SCHEDULERS[spec.sampler]
    own = pipeline.scheduler
    pipeline.scheduler = kind.from_config(dict(own.config) | fixed)
    drawn = pipeline(
        [caption for caption in CAPTIONS for _ in range(spec.views)],
        negative_prompt=[spec.negative_prompt] * 4 if spec.negative_prompt else None,
        height=spec.size,
        width=spec.size,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance[0],
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="np",
    )
    pipeline.scheduler = own
    return np.round(np.asarray(drawn.images) * 255).astype(np.uint8)


def _assert_same(got: ImagesNHWC, expected: ImagesNHWC) -> None:
    off = np.abs(got.astype(int) - expected.astype(int))
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-3


@pytest.mark.parametrize("sampler", list(SCHEDULERS))
@pytest.mark.parametrize("family", FAMILIES)
def test_images_equal_the_pipelines(family_folders: dict[str, Path], family: str, sampler: str) -> None:
    """Unguided, and guided where the sampler has guidance, with no negative prompt: SDXL then takes zeros."""
    folder = family_folders[family]
    for guidance in (1.0,) if sampler == "turbo" else (1.0, 6.3):
        spec = _spec(sampler, guidance)
        images = _sample(_model(folder), spec)
        _assert_same(images, _redraw(_pipeline(folder), spec))
        assert images.std(axis=0).mean() > 2, "all images are alike, so the comparison could not fail"


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_negative_prompts_equal_the_pipelines(family_folders: dict[str, Path], family: str) -> None:
    """They are encoded, by both of SDXL's encoders."""
    folder = family_folders[family]
    spec = _spec("euler", 6.3, negative_prompt="blurry")
    images = _sample(_model(folder), spec)
    _assert_same(images, _redraw(_pipeline(folder), spec))
    assert np.abs(images.astype(int) - _sample(_model(folder), _spec("euler", 6.3))).max() > 1


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")  # the pipeline itself calls it
@pytest.mark.parametrize(
    ("family", "dtype"), [("sd1", torch.bfloat16), ("sdxl", torch.bfloat16), ("sdxl", torch.float16)]
)
def test_half_precision_stays_near_the_pipelines(
    family_folders: dict[str, Path], family: str, dtype: torch.dtype
) -> None:
    """Within that arithmetic's rounding, which the distance to float32 shows. SDXL decodes in float32.

    In one layout of memory: in another the sums are taken in another order.
    """
    folder, spec = family_folders[family], _spec("euler", 6.3)
    images = _sample(_model(folder, dtype), spec).astype(int)
    pipeline = _pipeline(folder, dtype)
    for module in (pipeline.unet, pipeline.vae):
        module.to(memory_format=memory_format_of(torch.device("cpu"), dtype))
    expected = _redraw(pipeline, spec)
    full = _sample(_model(folder), spec)
    rounding = np.abs(expected.astype(int) - full).mean()
    assert np.abs(images - expected).mean() <= max(0.1, rounding)
    upcast = family == "sdxl" and dtype == torch.float16
    assert _model(folder, dtype).vae.dtype == (torch.float32 if upcast else dtype)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_do_not_depend_on_slot_or_neighbours(
    family_folders: dict[str, Path], make_ticket, family: str, precision: str
) -> None:
    """Bit for bit in each slot, among two sets of neighbours, and alone."""
    folder = open_model_folder(str(family_folders[family]))
    spec = _spec("euler", 1.0, 3.0, steps=2)
    config = GeneratorConfig(batch_images=6, precision=precision)
    engine = DiffusionEngine(config, folder, "", spec, lambda: False)
    assert engine.exact
    probe, *others = [make_ticket(i, f"caption {i}", views=2, guidance=(1.0, 3.0)) for i in range(5)]
    (alone,) = engine.draw([probe], lambda: False)
    for slot in range(3):
        pair = others[slot : slot + 2]
        drawn = engine.draw([*pair[:slot], probe, *pair[slot:]], lambda: False)
        assert np.array_equal(drawn[slot], alone)


def test_the_loop_never_waits_for_the_device(family_folders: dict[str, Path]) -> None:
    """From the first to the last evaluation no tensor is read by the host."""
    model, reads = _model(family_folders["sdxl"]), []
    inside = False

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if inside and func is torch.ops.aten._local_scalar_dense.default:
                reads.append(func)
            return func(*args, **(kwargs or {}))

    def enter(*_: object) -> None:
        nonlocal inside
        inside = True

    def leave(*_: object) -> None:
        nonlocal inside
        inside = False

    hooks = [model.unet.register_forward_pre_hook(enter), model.vae.decoder.register_forward_pre_hook(leave)]
    with Watching():
        for sampler in SCHEDULERS:
            _sample(model, _spec(sampler, 1.0))
            assert not inside
            assert torch.ones(1).item()
    for hook in hooks:
        hook.remove()
    assert reads == []


def test_latents_that_are_not_numbers_fail_their_ticket_alone(
    family_folders: dict[str, Path], make_ticket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is refused while the guilty one is in it, also when it is none of the padding."""
    folder = open_model_folder(str(family_folders["sd1"]))
    engine = DiffusionEngine(
        GeneratorConfig(batch_images=6, precision="float32"), folder, "", _spec("ddim", 1.0), lambda: False
    )
    plan = engine._sampler._plan
    whole = type(plan).begin
    bad, good = make_ticket(1, "bad", views=2), make_ticket(2, "good", views=2)

    def overflow(self: Any, noise_NCHW: torch.Tensor) -> torch.Tensor:
        guilty = torch.Generator().manual_seed(bad.seeds[1])
        marked_CHW = torch.randn(noise_NCHW.shape[1:], generator=guilty)
        broken_N = (noise_NCHW == marked_CHW).flatten(1).all(1)
        return torch.where(broken_N[:, None, None, None], torch.inf, whole(self, noise_NCHW))

    monkeypatch.setattr(type(plan), "begin", overflow)
    with pytest.raises(
        NonFiniteError, match="the latents of 1 of 4 images are not finite, the first is number 3"
    ):
        engine.draw([good, bad], lambda: False)
    with pytest.raises(NonFiniteError, match="1 of 2"):
        engine.draw([bad], lambda: False)
    assert len(engine.draw([good], lambda: False)) == 1
    monkeypatch.setattr(type(plan), "begin", lambda self, noise_NCHW: noise_NCHW * torch.inf)
    with pytest.raises(UserError, match=r"the model overflows: expected latents that are finite in float32"):
        DiffusionEngine(
            GeneratorConfig(batch_images=6, precision="float32"),
            folder,
            "",
            _spec("ddim", 1.0),
            lambda: False,
        )


def test_guidance_is_refused_where_the_sampler_has_none(family_folders: dict[str, Path]) -> None:
    """A list for a turbo model would draw images that its tickets misname."""
    with pytest.raises(UserError, match=r"turbo models have no guidance.*got \[1\.0, 2\.0\]"):
        Sampler(_model(family_folders["sdxl-turbo"]), _spec("turbo", 1.0, 2.0), groups=2)


def test_another_decoder_replaces_the_models_own(
    family_folders: dict[str, Path], distilled_folder: Path, tmp_path: Path, edit_json
) -> None:
    """The images are those of a pipeline with that decoder, and the digest is another."""
    own = open_model_folder(str(family_folders["sd1"]))
    tiny = open_model_folder(str(own.path), decoder=str(distilled_folder / "vae"))
    assert own.weights_digest() != tiny.weights_digest()
    spec = _spec("ddim", 1.0)
    images = _sample(load_family(tiny, device=CPU, dtype=torch.float32), spec)
    pipeline = StableDiffusionPipeline.from_pretrained(own.path, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae = AutoencoderTiny.from_pretrained(distilled_folder / "vae")
    # Of three blocks, the pipeline counts four pixels a latent cell; it has counted those of its own decoder.
    pipeline.vae_scale_factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    _assert_same(images, _redraw(pipeline, spec))
    other = Path(shutil.copytree(distilled_folder / "vae", tmp_path / "vae"))
    edit_json(other / "config.json", _class_name="AutoencoderDC")
    with pytest.raises(UserError, match="unknown decoder: expected AutoencoderKL or AutoencoderTiny, got"):
        open_model_folder(str(own.path), decoder=str(other))


def test_lora_weights_are_added_at_load(family_folders: dict[str, Path], tmp_path: Path) -> None:
    """W + scale * alpha / rank * B A, from a file as diffusers writes it; the digest knows file and scale."""
    folder = family_folders["sd1"]
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False))
    layers = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, safe_serialization=True)
    file = str(tmp_path / "pytorch_lora_weights.safetensors")
    fused = open_model_folder(str(folder), loras=[file], lora_scales=[0.5])
    assert fused.weights_digest() != open_model_folder(str(folder), loras=[file]).weights_digest()
    got = load_family(fused, device=CPU, dtype=torch.float32).unet.state_dict()
    plain = _model(folder).unet.state_dict()
    assert got.keys() == plain.keys()
    changed = [name for name in got if not torch.equal(got[name], plain[name])]
    assert changed == [name for name in plain if name.endswith("to_q.weight")]
    for name in changed:
        stem = name.removesuffix(".weight")
        product = layers[f"{stem}.lora_B.weight"] @ layers[f"{stem}.lora_A.weight"]
        ratio = (got[name] - plain[name]) / product
        assert torch.allclose(ratio, torch.full_like(ratio, 0.5), rtol=1e-2)


def test_loras_are_safetensors_with_as_many_scales(family_folders: dict[str, Path], tmp_path: Path) -> None:
    """What is missing, pickled or miscounted is told before weights are read; so is one of another model."""
    model = str(family_folders["sd1"])
    pickled, other = tmp_path / "lora.bin", tmp_path / "other.safetensors"
    pickled.write_bytes(b"")
    with pytest.raises(UserError, match=r"expected a \.safetensors file on this machine, got another kind"):
        open_model_folder(model, loras=[str(pickled)])
    with pytest.raises(UserError, match=r"expected a \.safetensors file on this machine, got none"):
        open_model_folder(model, loras=[str(other)])
    other.write_bytes(b"no header")
    with pytest.raises(UserError, match="a scale for each LoRA, or none: expected 1, got 2"):
        open_model_folder(model, loras=[str(other)], lora_scales=[1.0, 2.0])
    with pytest.raises(UserError, match="the LoRA cannot be used"):
        load_family(open_model_folder(model, loras=[str(other)]), device=CPU, dtype=torch.float32)
