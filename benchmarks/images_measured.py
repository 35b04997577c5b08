"""The contestants of `streamrep bench images`, and what is measured of them."""

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.energy import energy_counter
from generator_service.config import GeneratorConfig
from generator_service.devices import resolve_device, resolve_dtype
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.drawing import Drawing, OnHost
from generator_service.families import load_family
from generator_service.forward import DecoderModule, UNetModule
from generator_service.model_folder import open_model_folder
from generator_service.recipes import example_inputs
from generator_service.schedules import SCHEDULERS
from protocol.generation import GenerationSpec
from protocol.identity import caption_id, view_seed
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

_PRODUCT_SIDE = {"cpu": 1024, "cuda": 8192}
_PRODUCT_SECONDS = 1.0


class Contest:
    """Loads every contestant once; `rate` then measures one of them."""

    def __init__(self, options: argparse.Namespace, model: str, spec: GenerationSpec) -> None:
        """Raises UserError for a model or an engine that can't be had."""
        torch.set_num_threads(options.threads)
        self._spec = spec
        self._device = resolve_device(options.device)
        self._dtype = resolve_dtype(options.precision, self._device)
        self.precision = str(self._dtype).removeprefix("torch.")
        groups = options.batch_images // spec.views
        self.batch_images = groups * spec.views
        self._tickets = [_ticket(i, spec) for i in range(groups)]
        folder = open_model_folder(model)
        pipeline = DiffusionPipeline.from_pretrained(folder.path, dtype=self._dtype).to(self._device)
        pipeline.set_progress_bar_config(disable=True)
        kind, fixed = SCHEDULERS[spec.sampler]
        pipeline.scheduler = kind.from_config(dict(pipeline.scheduler.config) | fixed)
        self.contestants: dict[str, Callable[[], Drawing]] = {
            "stock, a caption at a time": lambda: OnHost(
                [self._stock(pipeline, [ticket]) for ticket in self._tickets]
            ),
            "stock, same batch": lambda: OnHost([self._stock(pipeline, self._tickets)]),
        }
        """What begins a static batch of each."""
        digest = folder.weights_digest()
        for name in options.engines:
            config = GeneratorConfig(
                engine=name,
                engine_cache=options.engine_cache,
                batch_images=options.batch_images,
                device=options.device,
                precision=options.precision,
                threads=options.threads,
            )
            engine = DiffusionEngine(config, folder, digest, spec, lambda: False, print)
            self.contestants[name] = partial(engine.begin, self._tickets, lambda: False)
        self._peaks: dict[str, int] = {}
        self._joules = energy_counter(self._device)
        self._spent: dict[str, tuple[float, int]] = {}
        self._images = {  # which warms up as well
            name: np.concatenate(begin().groups()) for name, begin in self.contestants.items()
        }
        self.flops_per_image = _count_flops(folder, spec, self._device, self._dtype)
        self.product_flops_per_second = _product_rate(self._device, self._dtype)

    def rate(self, name: str, seconds: float) -> float:
        """Images a second over whole batches, for at least so long. Each is fetched once the next has begun,
        as a worker does."""
        begin, joules = self.contestants[name], self._joules() if self._joules else 0.0
        began, batches = time.monotonic(), 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        under_way = begin()
        while time.monotonic() - began < seconds:
            following = begin()
            under_way.groups()
            under_way = following
            batches += 1
        under_way.groups()
        batches += 1
        rate: float = batches * self.batch_images / (time.monotonic() - began)
        self._peaks[name] = _peak_bytes(self._device)
        if self._joules:
            before, images = self._spent.get(name, (0.0, 0))
            self._spent[name] = (before + self._joules() - joules, images + batches * self.batch_images)
        return rate

    def joules_per_image(self, name: str) -> float | None:
        """Over all rounds, of the GPU or of all the CPUs of the machine; None if nobody tells."""
        if name not in self._spent:
            return None
        joules, images = self._spent[name]
        return joules / images

    def peak_bytes(self, name: str) -> int:
        """Of the device while that contestant ran; on a CPU of the process so far, all contestants loaded."""
        return self._peaks[name]

    def levels_off(self, name: str) -> float:
        """Mean difference from the stock images of the same batch, in levels of 255."""
        stock = self._images["stock, same batch"].astype(np.int16)
        return float(np.abs(self._images[name] - stock).mean())

    def _stock(self, pipeline: Any, tickets: list[Ticket]) -> ImagesNHWC:
        seeds = [seed for ticket in tickets for seed in ticket.seeds]
        drawn = pipeline(
            [ticket.caption for ticket in tickets],
            num_images_per_prompt=self._spec.views,
            height=self._spec.drawn_size,
            width=self._spec.drawn_size,
            num_inference_steps=self._spec.steps,
            guidance_scale=self._spec.guidance[0],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )
        return np.stack([np.asarray(image) for image in drawn.images])


def _ticket(number: int, spec: GenerationSpec) -> Ticket:
    caption = f"picture {number} of a thing"
    named = caption_id(caption)
    return Ticket(
        group_id=number,
        caption_id=named,
        caption=caption,
        first_view=0,
        seeds=tuple(view_seed(0, named, view) for view in range(spec.views)),
        guidance=spec.guidance * spec.views,
    )


def _count_flops(folder: Any, spec: GenerationSpec, device: torch.device, dtype: torch.dtype) -> float:
    """Of UNet and decoder for one image; text is encoded once a caption and left out. 2 a multiply-add."""
    model = load_family(folder, device=device, dtype=dtype)
    unet_inputs, latents_NCHW = example_inputs(model, spec, 1)
    with torch.inference_mode(), FlopCounterMode(display=False) as unet:
        UNetModule(model)(*unet_inputs)
    with torch.inference_mode(), FlopCounterMode(display=False) as decoder:
        DecoderModule(model)(latents_NCHW)
    return float(spec.steps * unet.get_total_flops() + decoder.get_total_flops())


def _product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of a large square matrix product."""
    side = _PRODUCT_SIDE[device.type]
    left = torch.randn((side, side), device=device).to(dtype)
    torch.mm(left, left)
    _wait(device)
    began, products = time.monotonic(), 0
    while time.monotonic() - began < _PRODUCT_SECONDS:
        for _ in range(4):
            torch.mm(left, left)
        _wait(device)
        products += 4
    return products * 2 * side**3 / (time.monotonic() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
