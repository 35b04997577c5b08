"""The [monitor] section of a run file."""

from typing import Annotated

from msgspec import Meta, Struct


class MonitorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[monitor]"""

    bind: Annotated[
        str,
        Meta(
            description="where the trainer shows /metrics and /healthz: PORT is loopback, HOST:PORT that"
            " address, for everybody who reaches it; empty is nowhere"
        ),
    ] = ""
    stalled_seconds: Annotated[
        float, Meta(gt=0, description="a trainer that stands still for longer is no longer healthy")
    ] = 60.0
