"""Puts a trainer's two pages on the network, where the run file asks for them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from monitoring.address import parse_address
from monitoring.server import MonitorServer
from trainer.monitor.families import families
from trainer.monitor.health import health
from trainer.monitor.reading import Observer


@contextmanager
def show(observer: Observer) -> Iterator[MonitorServer | None]:
    """Answers at `monitor.bind` inside the context; None where that is empty. Raises UserError."""
    config = observer.config.monitor
    if not config.bind:
        yield None
        return
    server = MonitorServer(
        parse_address(config.bind, "monitor.bind"),
        lambda: families(observer.read()),
        lambda: health(observer.read(), config.stalled_seconds),
        where="monitor.bind",
    )
    with closing(server):
        server.start()
        yield server
