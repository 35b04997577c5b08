"""The `[generator]` section of a run file: what a generator needs beyond what `welcome` tells it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

BUILT_ENGINES = ("compile", "tensorrt", "torch-tensorrt")
"""Those that `streamrep engine build` builds."""


class GeneratorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read by the generator only; two generators of one run may differ in all but what decides
    the pixels' meaning: model, decoder and loras."""

    connect: Annotated[str, Meta(description="address of the trainer's first rank")] = "tcp://127.0.0.1:5755"
    keys: Annotated[
        str,
        Meta(description="this worker's folder of `streamrep keys`, for a trainer that uses keys"),
    ] = ""
    model: Annotated[
        str,
        Meta(
            description="`embedded`, a folder in diffusers' format with safetensors weights, or owner/name on"
            " the Hugging Face hub"
        ),
    ] = "embedded"
    decoder: Annotated[
        str,
        Meta(
            description="folder or hub name of an AutoencoderTiny or AutoencoderKL of the same latents, used"
            " instead of the model's own; `embedded-tiny` is a faster one of the embedded model; empty is"
            " the model's"
        ),
    ] = ""
    loras: Annotated[
        tuple[str, ...],
        Meta(
            max_length=16,
            description="LoRA files (.safetensors) added to the model's weights when it is loaded",
        ),
    ] = ()
    lora_scales: Annotated[
        tuple[float, ...], Meta(max_length=16, description="how much of each LoRA; empty is 1 of each")
    ] = ()
    engine: Annotated[
        Literal["auto", "eager", "compile", "tensorrt", "torch-tensorrt", "xformers", "pipeline", "fake"],
        Meta(
            description="what computes the images: `compile`, `tensorrt` and `torch-tensorrt` build for"
            " minutes once and are then cached, the last two for CUDA devices and never executed so far;"
            " `auto` is the fastest that is built and was ever executed on such a device; `pipeline` is the"
            " slow way, any other text-to-image pipeline of diffusers by its own call (generation.sampler ="
            " own); `fake` draws patterns, without a model"
        ),
    ] = "eager"
    engine_cache: Annotated[str, Meta(description="folder of built engines")] = "runs/.engines"
    cuda_graphs: Annotated[
        bool,
        Meta(
            description="run the whole denoising loop as one CUDA graph, with any engine but `pipeline`;"
            " never executed so far"
        ),
    ] = False
    batch_images: Annotated[
        int,
        Meta(ge=1, le=65536, description="static batch of the engine, in images; groups are packed into it"),
    ] = 48
    pack_milliseconds: Annotated[
        int, Meta(ge=0, le=10000, description="how long a part-filled batch waits for more tickets")
    ] = 50
    device: Annotated[str, Meta(description="auto, cpu, cuda or cuda:N")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(
            description="arithmetic; auto is float16 on CUDA, bfloat16 on CPUs that multiply it in hardware"
        ),
    ] = "auto"
    threads: Annotated[
        int, Meta(ge=0, le=1024, description="compute threads on a CPU; 0 leaves it to torch")
    ] = 1
    wait_seconds: Annotated[
        float, Meta(ge=0, description="how long a worker waits for a trainer, at start and after losing it")
    ] = 120.0
    monitor_bind: Annotated[
        str,
        Meta(
            description="where the generator shows /metrics and /healthz: PORT is loopback, HOST:PORT that"
            " address, for everybody who reaches it; empty is nowhere. Of `streamrep up --workers N` the i-th"
            " takes the i-th port from there"
        ),
    ] = ""
    fake_images_per_second: Annotated[
        float, Meta(ge=0, description="speed of the fake engine; 0 is as fast as it can")
    ] = 0.0
