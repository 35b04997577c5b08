"""What `streamrep ctl RUN status` is told. Pure: a reading in, a status out."""

from trainer.config import Mode
from trainer.control.messages import Status
from trainer.monitor.reading import Reading


def status_of(reading: Reading, mode: Mode, *, paused: bool) -> Status:
    """The trainer at the moment of that reading."""
    row, still = reading.row or {}, reading.standstill
    return Status(
        run=reading.run,
        step=int(row.get("step", reading.first_step)),
        max_steps=reading.max_steps,
        mode=mode,
        paused=paused,
        fresh_share=row.get("fresh_fraction"),
        waiting_share=row.get("waiting_share"),
        mean_uses=row.get("mean_uses"),
        reuse=row.get("reuse"),
        workers=reading.status.workers,
        stall=still.reason.value if still.reason else None,
        stall_seconds=round(still.lasted, 1),
    )
