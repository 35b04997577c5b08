"""One generator process: tickets in, groups out.

 trainer ⇄ I/O thread (Link) ─batch→ compute thread: DrawingLoop ─outcomes→ I/O thread ⇄ trainer

The compute thread is the one that calls `run_worker`; it takes batches, produces outcomes, waits for tickets
that the I/O thread brings, and is unblocked by them or by the end.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from generator_service.config import GeneratorConfig
from generator_service.conversation import WorkerFacts
from generator_service.drawing_loop import DrawingLoop
from generator_service.engine import Abandoned, Engine
from generator_service.errors import DrawAbandonedError
from generator_service.fake import WEIGHTS, FakeEngine
from generator_service.fitting import EngineBuilder, Fitting, SmallerBuilder
from generator_service.link import Link
from generator_service.model_folder import open_model_folder
from generator_service.pages import show
from generator_service.tally import Tally
from protocol.generation import GenerationSpec
from protocol.keys import read_worker_keys

Say = Callable[[str], None]

OVERDUE_SECONDS = 9.0


def run_worker(config: GeneratorConfig, stop: threading.Event, say: Say = print) -> None:
    """Draws for the trainer at `config.connect` until it says stop, or `stop` is set; then ends within 10 s.

    Raises UserError for what a person can mend (refused, no trainer, no such model or key, out of memory) and
    LinkError when the I/O thread died. A draw that cannot be given up in time ends the process from within.
    """
    facts, build = prepare(config, say)

    def smaller(batch_images: int) -> EngineBuilder:
        return prepare(msgspec.structs.replace(config, batch_images=batch_images), say)[1]

    serve(config, facts, build, stop, say, smaller)


def serve(
    config: GeneratorConfig,
    facts: WorkerFacts,
    build: EngineBuilder,
    stop: threading.Event,
    say: Say,
    smaller: SmallerBuilder | None = None,
) -> None:
    """`run_worker` with the engine that `build` makes, or `smaller` where memory runs out."""
    link = Link(
        config.connect,
        facts,
        keys=read_worker_keys(config.keys),
        wait_seconds=config.wait_seconds,
        pack_seconds=config.pack_milliseconds / 1000,
        stop=stop,
    )
    finished = threading.Event()
    threading.Thread(target=_end_overdue, args=(link, finished), name="overdue", daemon=True).start()
    tally = Tally()
    try:
        with show(config.monitor_bind, facts, link, tally):
            say(f"generator {facts.worker} on {facts.device}: looking for a trainer at {config.connect}")
            spec = link.wait_for_spec()
            if spec is not None:
                DrawingLoop(Fitting(build, smaller, say), spec, link, tally, say).run()
    except DrawAbandonedError:
        pass  # the tickets went back with the goodbye
    finally:
        link.close()
        finished.set()
    link.raise_failure()


def prepare(config: GeneratorConfig, say: Say = print) -> tuple[WorkerFacts, EngineBuilder]:
    """What the worker says of itself, and how its engine is made once the spec is known."""
    worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    if config.engine == "fake":
        facts = WorkerFacts(worker=worker, device="cpu", weights=WEIGHTS)
        return facts, lambda spec, abandoned: FakeEngine(
            spec, batch_images=config.batch_images, images_per_second=config.fake_images_per_second
        )
    if config.engine == "pipeline":
        return _prepare_pipeline(config, worker)
    folder = open_model_folder(config.model, config.decoder, config.loras, config.lora_scales)
    weights = folder.weights_digest()
    from generator_service.devices import device_name, resolve_device  # torch: the fake engine needs none

    facts = WorkerFacts(worker=worker, device=device_name(resolve_device(config.device)), weights=weights)

    def build(spec: GenerationSpec, abandoned: Abandoned) -> Engine:
        from generator_service.diffusion_engine import DiffusionEngine

        return DiffusionEngine(config, folder, weights, spec, abandoned, say)

    return facts, build


def _prepare_pipeline(config: GeneratorConfig, worker: str) -> tuple[WorkerFacts, EngineBuilder]:
    from generator_service.devices import device_name, resolve_device
    from generator_service.pipeline_engine import PipelineEngine, open_pipeline

    folder, weights = open_pipeline(config.model)
    facts = WorkerFacts(worker=worker, device=device_name(resolve_device(config.device)), weights=weights)
    return facts, lambda spec, abandoned: PipelineEngine(config, folder, weights, spec, abandoned)


def _end_overdue(link: Link, finished: threading.Event) -> None:
    """Ends the process when the compute thread sits in one call that takes too long to leave."""
    link.abandoned.wait()
    told_at = link.told_at or time.monotonic()
    if not finished.wait(max(0.0, told_at + OVERDUE_SECONDS - time.monotonic())):
        os._exit(1)
