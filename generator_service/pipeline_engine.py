"""The `pipeline` engine: any other diffusers text-to-image pipeline through its own call. The slow way.

A group at a time and nothing packed; its own scheduler, so the run's sampler is called `own`.
"""

import inspect
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import xxhash
from diffusers import DiffusionPipeline

from generator_service.config import GeneratorConfig
from generator_service.devices import device_name, resolve_device, resolve_dtype
from generator_service.drawing import OnHost
from generator_service.engine import Abandoned, check_ticket, groups_of
from generator_service.errors import DrawAbandonedError, TicketError
from generator_service.hub import find_folder
from generator_service.model_folder import read_json
from generator_service.recipes import LIBRARIES
from generator_service.resize import to_pixels
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.identity import digest_of
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

SAMPLER = "own"
_TOLD = {".json", ".txt", ".model", ".safetensors"}
_PICKLED = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}


class PipelineEngine:
    """Draws a ticket by one call of the pipeline, so that no image has neighbours of another group."""

    def __init__(
        self,
        config: GeneratorConfig,
        folder: Path,
        weights: str,
        spec: GenerationSpec,
        abandoned: Abandoned,
    ) -> None:
        """Loads and warms up. Raises UserError for what the pipeline can't do, DrawAbandonedError."""
        self._spec = spec
        groups_of(config.batch_images, spec)
        self.batch_images = spec.views
        if config.threads:
            torch.set_num_threads(config.threads)
        self._device = resolve_device(config.device)
        dtype = resolve_dtype(config.precision, self._device)
        self._pipeline = _load(folder, dtype, self._device)
        self._takes = set(inspect.signature(self._pipeline.__call__).parameters)
        self._check(spec)
        name, precision = device_name(self._device), str(dtype).removeprefix("torch.")
        self.content_hash = digest_of({"weights": weights, "generation": msgspec.to_builtins(spec)})
        self.engine_hash = digest_of(
            {
                "engine": "pipeline",
                "precision": precision,
                "batch_images": self.batch_images,
                "libraries": {name: version(name) for name in LIBRARIES},
                "device": name,
                "threads": torch.get_num_threads() if self._device.type == "cpu" else 0,
            }
        )
        kind = type(self._pipeline).__name__
        self.summary = f"pipeline engine, the slow way ({kind} by its own call), on {name}, {precision}"
        self.exact, self.batch_seconds = self._warm_up(abandoned)

    def begin(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> OnHost:
        """See `Engine.begin`."""
        return OnHost(self.draw(tickets, abandoned))

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        """See `Engine.draw`."""
        groups = []
        for ticket in tickets:
            if abandoned():
                raise DrawAbandonedError(f"before group {ticket.group_id}")
            check_ticket(ticket, self._spec)
            groups.append(self._draw_group(ticket))
        return groups

    def cuts(self, caption: str) -> bool:
        """Not known: what a pipeline does to long captions is its own affair."""
        return False

    def _draw_group(self, ticket: Ticket) -> ImagesNHWC:
        if len(set(ticket.guidance)) > 1:
            raise TicketError(f"ticket {ticket.group_id}: a pipeline takes one guidance scale a call")
        words: dict[str, Any] = {
            "height": self._spec.drawn_size,
            "width": self._spec.drawn_size,
            "num_inference_steps": self._spec.steps,
            "generator": [torch.Generator().manual_seed(seed) for seed in ticket.seeds],
            "output_type": "np",
        }
        if "guidance_scale" in self._takes:
            words["guidance_scale"] = ticket.guidance[0]
        if self._spec.negative_prompt:
            words["negative_prompt"] = [self._spec.negative_prompt] * ticket.views
        images_NHWC = np.asarray(self._pipeline([ticket.caption] * ticket.views, **words).images)
        if not np.isfinite(images_NHWC).all():
            raise TicketError(f"ticket {ticket.group_id}: pixels that are not finite")
        unit_NCHW = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2)
        levels_NHWC: ImagesNHWC = to_pixels(unit_NCHW, self._spec.size).numpy()
        return levels_NHWC

    def _check(self, spec: GenerationSpec) -> None:
        if spec.sampler != SAMPLER:
            raise _refusal("a pipeline has its own scheduler", SAMPLER, spec.sampler, "generation.sampler")
        missing = {"height", "width", "num_inference_steps", "generator", "output_type"} - self._takes
        if missing:
            got = "one without " + ", ".join(sorted(missing))
            raise _refusal("not a text-to-image pipeline", "a call that takes them", got, "generator.model")
        if "guidance_scale" not in self._takes and spec.guidance != (1.0,):
            raise _refusal(
                "this pipeline has no guidance", "[1.0]", str(list(spec.guidance)), "generation.guidance"
            )
        if "negative_prompt" not in self._takes and spec.negative_prompt:
            where = "generation.negative_prompt"
            raise _refusal("this pipeline has no negative prompt", "none", spec.negative_prompt, where)

    def _warm_up(self, abandoned: Abandoned) -> tuple[bool, float]:
        seeds = tuple(range(self._spec.views))
        guidance = (self._spec.guidance[0],) * self._spec.views
        probe = Ticket(group_id=0, caption_id=0, caption="a b", first_view=0, seeds=seeds, guidance=guidance)
        [first] = self.draw([probe], abandoned)
        began = time.monotonic()
        [second] = self.draw([probe], abandoned)
        return bool(np.array_equal(first, second)), time.monotonic() - began


def open_pipeline(model: str) -> tuple[Path, str]:
    """The folder of any pipeline, and the digest of all in it that is read. Raises UserError.

    Pickled weights are refused, since a pipeline of unknown parts could load them.
    """
    folder = find_folder(model, "generator.model")
    read_json(folder / "model_index.json")
    digest = xxhash.xxh3_128()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix in _PICKLED:
            raise _refusal("pickled weights", "safetensors alone", file.name, str(folder))
        if file.suffix in _TOLD:
            name = file.relative_to(folder).as_posix().encode()
            digest.update(b"%d:%s%d:" % (len(name), name, file.stat().st_size))
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 24):
                    digest.update(chunk)
    return folder, digest.hexdigest()


def _load(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        lines = str(error).splitlines()
        got = lines[0] if lines else type(error).__name__
        raise _refusal("the pipeline cannot be read", "one that diffusers loads", got, str(folder)) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _refusal(what: str, expected: str, got: str, where: str) -> UserError:
    return UserError(what, expected=expected, got=got, where=where, mend="choose another model, or change it")
