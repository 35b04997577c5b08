"""What /metrics and /healthz say of a generator.

I/O thread ─LinkStatus→ ┐
compute thread ─Drawn→  ┴ families, health ─→ MonitorServer
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from generator_service.conversation import WorkerFacts
from generator_service.link import Link
from generator_service.link_status import LinkStatus
from generator_service.tally import Drawn, Tally
from monitoring.address import parse_address
from monitoring.exposition import Family, counter, gauge, histogram, info
from monitoring.health import Health
from monitoring.server import MonitorServer

STALLED_SECONDS = 60.0
"""Without a trainer, or in one batch, for longer than this is worth a look."""
BATCHES = 4
"""A batch may also last this many times its p95, as a lease does."""
SILENT_SECONDS = 10.0
"""The I/O thread, which turns ten times a second, hangs."""
MALFORMED_REASONS = ("frame_count", "header_size", "header", "session", "order")
"""Shown from the start, since an increase is seen only beside a first zero."""


@contextmanager
def show(bind: str, facts: WorkerFacts, link: Link, tally: Tally) -> Iterator[MonitorServer | None]:
    """Answers at `generator.monitor_bind` inside the context; None where it is empty. Raises UserError."""
    if not bind:
        yield None
        return
    server = MonitorServer(
        parse_address(bind, "generator.monitor_bind"),
        lambda: families(facts, link.status, tally.drawn()),
        lambda: health(link.status, tally.drawn(), time.monotonic()),
        where="generator.monitor_bind",
    )
    with closing(server):
        server.start()
        yield server


def families(facts: WorkerFacts, status: LinkStatus, drawn: Drawn) -> list[Family]:
    """Everything that /metrics shows."""
    return [
        info("streamrep_generator_info", "Always 1; its label names the device.", {"device": facts.device}),
        counter("streamrep_generator_images_drawn_total", "Images that the engine drew.", drawn.images),
        counter(
            "streamrep_generator_failed_groups_total",
            "Tickets that the engine could not draw.",
            drawn.failed_groups,
        ),
        counter(
            "streamrep_generator_constant_images_total",
            "Images of one colour, among those drawn.",
            drawn.constant_images,
        ),
        counter(
            "streamrep_generator_groups_sent_total",
            "Groups handed to the trainer's sockets.",
            status.groups_sent,
        ),
        histogram(
            "streamrep_generator_batch_seconds",
            "Time in which a static batch was drawn.",
            drawn.batch_seconds,
        ),
        gauge(
            "streamrep_generator_drawing_seconds",
            "Age of the batch under way; 0 when there is none.",
            status.drawing_seconds,
        ),
        gauge("streamrep_generator_connected", "Trainer ranks that answer.", status.connected),
        counter(
            "streamrep_generator_malformed_total",
            "Messages of the trainer that were dropped, by reason.",
            dict.fromkeys(MALFORMED_REASONS, 0) | dict(status.malformed),
            "reason",
        ),
    ]


def health(status: LinkStatus, drawn: Drawn, now: float) -> Health:
    """Failed when the I/O thread has died or hangs, stalled without a trainer or in an overlong batch.

    A generator without tickets is healthy: the trainer's window is full.
    """
    facts = {
        "connected": status.connected,
        "images_drawn": drawn.images,
        "groups_sent": status.groups_sent,
        "drawing_seconds": round(status.drawing_seconds, 1),
        "lost_seconds": round(status.lost_seconds, 1),
    }
    if status.failure:
        return Health(status="failed", reason=status.failure, facts=facts)
    if now - status.at > SILENT_SECONDS:
        reason = f"the I/O thread hangs since {now - status.at:.0f} s"
        return Health(status="failed", reason=reason, facts=facts)
    if status.lost_seconds > STALLED_SECONDS:
        reason = f"no trainer answers since {status.lost_seconds:.0f} s"
        return Health(status="stalled", reason=reason, facts=facts)
    if status.drawing_seconds > max(STALLED_SECONDS, BATCHES * status.batch_seconds):
        usual = f"batches take {status.batch_seconds:.1f} s"
        reason = f"one batch takes {status.drawing_seconds:.0f} s, where {usual}"
        return Health(status="stalled", reason=reason, facts=facts)
    return Health(status="healthy", reason=_doing(status), facts=facts)


def _doing(status: LinkStatus) -> str:
    if not status.connected:
        return "looking for the trainer"
    if not status.equipped:
        return "building the engine"
    return "drawing" if status.drawing_seconds else "waits for tickets"
