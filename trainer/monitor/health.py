"""Whether somebody has to look at this trainer. Pure: a reading in, a verdict with its reason out."""

from monitoring.health import Health
from trainer.monitor.reading import Reading
from trainer.stall import Stall, explain


def health(reading: Reading, stalled_seconds: float) -> Health:
    """Failed when the feed has died, stalled after `stalled_seconds` of one standstill, else healthy.

    A short wait is part of a run whose generators are slower than its trainer, and an evaluation is work.
    """
    still = reading.standstill
    step = reading.first_step if reading.row is None else int(reading.row["step"])
    facts = {
        "run": reading.run,
        "step": step,
        "max_steps": reading.max_steps,
        "stall": still.reason.value if still.reason else None,
        "stall_seconds": round(still.lasted, 1),
        "workers": reading.status.workers,
    }
    if reading.status.failure:
        return Health(status="failed", reason=f"the feed stopped: {reading.status.failure}", facts=facts)
    if still.reason is Stall.PAUSED:
        why = explain(still.reason, still.want, reading.status, reading.endpoint)
        return Health(status="healthy", reason=why, facts=facts)
    if still.reason and still.lasted >= stalled_seconds:
        why = explain(still.reason, still.want, reading.status, reading.endpoint)
        return Health(status="stalled", reason=f"stands still for {still.lasted:.0f} s: {why}", facts=facts)
    if reading.row is None:
        return Health(status="healthy", reason=f"no step yet since it started after step {step}", facts=facts)
    return Health(status="healthy", reason=f"step {step} of {reading.max_steps} trained", facts=facts)
