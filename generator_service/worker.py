"""One generator process: tickets in, groups out.

 trainer ⇄ I/O thread (Link) ─batch→ compute thread: Engine.draw ─outcomes→ I/O thread ⇄ trainer

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

from generator_service.channel import DrawnGroup, FailedDraw, Outcome
from generator_service.config import GeneratorConfig
from generator_service.conversation import Equipment, WorkerFacts
from generator_service.engine import Abandoned, Engine
from generator_service.errors import DrawAbandonedError, OutOfDeviceMemoryError
from generator_service.fake import WEIGHTS, FakeEngine
from generator_service.fitting import EngineBuilder, Fitting, SmallerBuilder
from generator_service.link import Link
from generator_service.model_folder import open_model_folder
from generator_service.packer import Assignment
from generator_service.pages import show
from generator_service.status_line import status_line
from generator_service.tally import Tally
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.keys import read_worker_keys

Say = Callable[[str], None]

STATUS_SECONDS = 30.0
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
                fitting = Fitting(build, smaller, say)
                # Held by `_work` alone, which lets go of it where it has to be replaced.
                _work(
                    fitting.build(spec, link.abandoned.is_set, exact=link.exact),
                    *(fitting, spec, link, tally, say),
                )
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


def _work(engine: Engine, fitting: Fitting, spec: GenerationSpec, link: Link, tally: Tally, say: Say) -> None:
    _equip(engine, spec, link, say)
    status = _Status(spec.views, link, say)
    while (batch := _next_batch(link, status)) is not None:
        began = time.monotonic()
        outcomes = _draw_parts(engine, spec, batch, link.abandoned.is_set)
        while isinstance(outcomes, OutOfDeviceMemoryError):
            del engine
            engine = fitting.shrink(outcomes, spec, link.abandoned.is_set, exact=link.exact)
            _equip(engine, spec, link, say)
            outcomes = _draw_parts(engine, spec, batch, link.abandoned.is_set)
        seconds = time.monotonic() - began
        link.hand_over(outcomes)
        tally.count(outcomes, seconds)


def _equip(engine: Engine, spec: GenerationSpec, link: Link, say: Say) -> None:
    say(f"{engine.summary}, static batch of {engine.batch_images} images, exact: {engine.exact}")
    equipment = Equipment(
        content=engine.content_hash,
        engine=engine.engine_hash,
        batch_images=engine.batch_images,
        exact=engine.exact,
    )
    groups = engine.batch_images // spec.views
    link.equip(equipment, groups_per_batch=groups, batch_seconds=engine.batch_seconds)


def _next_batch(link: Link, status: "_Status") -> list[Assignment] | None:
    while True:
        status.say_when_due()
        batch = link.next_batch(status.seconds_left())
        if batch is None or batch:
            return batch


def _draw_parts(
    engine: Engine, spec: GenerationSpec, batch: list[Assignment], abandoned: Abandoned
) -> tuple[Outcome, ...] | OutOfDeviceMemoryError:
    """A batch that was packed for a larger engine takes more than one draw."""
    groups = engine.batch_images // spec.views
    parts = [batch[start : start + groups] for start in range(0, len(batch), groups)]
    try:
        return tuple(outcome for part in parts for outcome in draw_batch(engine, part, abandoned))
    except OutOfDeviceMemoryError as error:
        return error


def draw_batch(engine: Engine, batch: list[Assignment], abandoned: Abandoned) -> tuple[Outcome, ...]:
    """Draws a batch; when that fails, each group alone once, so that only the guilty ones fail.

    A UserError (out of memory above all), a MemoryError and giving up are the worker's end and not the
    ticket's failure: they are raised.
    """
    try:
        return _draw_together(engine, batch, abandoned)
    except (UserError, DrawAbandonedError, MemoryError):
        raise
    except Exception as error:  # whatever a ticket provokes must not cost its neighbours
        if len(batch) == 1:
            return (_failed(batch[0], error),)
    return tuple(outcome for one in batch for outcome in draw_batch(engine, [one], abandoned))


def _draw_together(engine: Engine, batch: list[Assignment], abandoned: Abandoned) -> tuple[Outcome, ...]:
    started = time.monotonic()
    groups = engine.draw([one.ticket for one in batch], abandoned)
    seconds = time.monotonic() - started
    return tuple(
        DrawnGroup(
            rank=one.rank,
            group_id=one.ticket.group_id,
            images_NHWC=images,
            draw_seconds=seconds,
            caption_cut=engine.cuts(one.ticket.caption),
        )
        for one, images in zip(batch, groups, strict=True)
    )


def _failed(one: Assignment, error: Exception) -> FailedDraw:
    return FailedDraw(rank=one.rank, group_id=one.ticket.group_id, reason=f"{type(error).__name__}: {error}")


class _Status:
    """A line for people every 30 s."""

    def __init__(self, views: int, link: Link, say: Say) -> None:
        self._views, self._link, self._say = views, link, say
        self._said_at = time.monotonic()
        self._groups = 0

    def seconds_left(self) -> float:
        return max(0.0, self._said_at + STATUS_SECONDS - time.monotonic())

    def say_when_due(self) -> None:
        if self.seconds_left() > 0:
            return
        now, groups = time.monotonic(), self._link.groups_sent
        rate = (groups - self._groups) * self._views / (now - self._said_at)
        self._say(status_line(rate, groups, self._link.malformed))
        self._said_at, self._groups = now, groups


def _end_overdue(link: Link, finished: threading.Event) -> None:
    """Ends the process when the compute thread sits in one call that takes too long to leave."""
    link.abandoned.wait()
    told_at = link.told_at or time.monotonic()
    if not finished.wait(max(0.0, told_at + OVERDUE_SECONDS - time.monotonic())):
        os._exit(1)
