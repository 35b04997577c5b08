"""Why a worker is not taken, in one line each: what was expected, what was got, how to mend it."""

from protocol import PROTOCOL_VERSION

NOT_ADMITTED = "its key is not admitted any more; `streamrep keys admit` on the trainer's machine admits it"


def another_protocol(got: int) -> str:
    """The two were installed at different times."""
    return f"the trainer speaks protocol {PROTOCOL_VERSION}, the worker {got}; install one version on both"


def another_run(expected: str, got: str) -> str:
    """Digests of plan and generation spec."""
    return f"the trainer runs {expected}, the worker was drawing for {got}; start the worker again"


def another_content(worker: str, expected: str, got: str, *, exact: bool) -> str:
    """Content hashes; in an exact run with the engine's."""
    what, mend = "model", "point generator.model at the model that the run began with"
    if exact:
        what, mend = "model or engine", f"{mend}, and draw with its first worker's engine, batch and device"
    return (
        f"worker {worker}: another {what} than the run's: expected content hash {expected}, got {got};"
        f" {mend}, or start a new run"
    )


def not_exact(worker: str) -> str:
    """In an exact run."""
    return (
        f"worker {worker}: stream.exact expects an engine that draws a group alike in any slot, got one that"
        " does not; choose another generator.engine, or set stream.exact = false"
    )
