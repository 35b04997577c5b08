"""Every message on the wire, as tagged structs: one union a direction.

The header is a MessagePack map whose `type` field names the message; any MessagePack library can speak it.
Schema evolution: new fields take defaults, none is renamed or reused, `PROTOCOL_VERSION` rises when a peer
that does not know a change would misbehave. `run` is the digest of plan and generation spec; `session` is
random at each trainer start.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocol.generation import GenerationSpec
from protocol.tickets import Id63, Ticket

Name = Annotated[str, Meta(max_length=256)]
Reason = Annotated[str, Meta(max_length=2000)]
Seconds = Annotated[float, Meta(ge=0, le=1e7)]
"""Bounded, since an infinite batch time would make a lease that never ends."""
Ids = Annotated[tuple[Id63, ...], Meta(max_length=65536)]


class _Message(Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=False):
    """Unknown fields are ignored, so that a newer peer may say more."""

    run: Name
    session: Name


# worker -> trainer


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """First message on a socket. `run` and `session` are those of the last welcome, or empty."""

    protocol: int
    worker: Name
    device: Name
    weights: Name
    """Digest of the model's weights."""


class Equipped(_Message, frozen=True, kw_only=True, tag="equipped"):
    """The engine for the welcomed spec is built and warm."""

    content: Name
    """Content hash: what the pixels mean."""
    engine: Name
    """Engine hash: what computes them."""
    batch_images: Annotated[int, Meta(ge=1, le=65536)]
    """Static batch shape of the engine, in images."""
    exact: bool = False
    """Whether a group was seen not to depend on its slot and neighbours."""


class Ready(_Message, frozen=True, kw_only=True, tag="ready"):
    """How many tickets the worker is ready to hold, those it holds included. Absolute: repeats do no harm."""

    credit: Annotated[int, Meta(ge=0, le=65536)]


class Group(_Message, frozen=True, kw_only=True, tag="group"):
    """A drawn group. One payload frame follows the header: uint8 NHWC, views first."""

    group_id: Id63
    shape: tuple[int, int, int, int]
    dtype: Name
    codec: Name
    nbytes: Annotated[int, Meta(ge=0)]
    xxh3: Annotated[str, Meta(min_length=16, max_length=16)]
    """xxh3-64 of the payload frame, 16 lower-case hex digits."""
    draw_seconds: Seconds
    """Wall time of the static batch that held the group."""
    caption_cut: bool = False
    """Whether the tokenizer dropped the end of the caption, which was too long for the text encoder."""


class Failed(_Message, frozen=True, kw_only=True, tag="failed"):
    """The worker could not draw this group and will not try again by itself."""

    group_id: Id63
    reason: Reason


class WorkerHeartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent by the I/O thread each second, also while a batch computes."""

    idle_seconds: Seconds
    """Since the sampler last finished a batch or was without work: what a stuck worker shows."""
    batch_seconds: Seconds
    """p95 of recent static batches; 0 before the first."""


class Bye(_Message, frozen=True, kw_only=True, tag="bye"):
    """The worker leaves; `returned` are tickets it holds and will not draw."""

    returned: Ids


WorkerMessage = Hello | Equipped | Ready | Group | Failed | WorkerHeartbeat | Bye


# trainer -> worker


class Welcome(_Message, frozen=True, kw_only=True, tag="welcome"):
    """Answer to `hello`: what to build, and where every rank listens."""

    protocol: int
    endpoints: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=4096)]
    """One a trainer rank, in rank order."""
    generation: GenerationSpec
    heartbeat_seconds: Seconds
    silence_seconds: Seconds
    """A peer unheard for this long is dead."""
    exact: bool = False
    """Whether only engines of one hash, each seen to be exact, may draw for the run."""


class Reject(_Message, frozen=True, kw_only=True, tag="reject"):
    """The worker may not go on as it is. `retry`: open a new socket and say hello; otherwise leave."""

    reason: Reason
    retry: bool = False


class Tickets(_Message, frozen=True, kw_only=True, tag="tickets"):
    """Orders, first come first served. At most the credit that is free."""

    tickets: Annotated[tuple[Ticket, ...], Meta(max_length=65536)]


class TrainerHeartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    """`wanted`: groups this rank would take at once; `buffered`: received and not yet trained on."""

    wanted: Annotated[int, Meta(ge=0)]
    buffered: Annotated[int, Meta(ge=0)]


class Cancel(_Message, frozen=True, kw_only=True, tag="cancel"):
    """These groups are no longer wanted; drop them if they have not been started."""

    group_ids: Ids


class Stop(_Message, frozen=True, kw_only=True, tag="stop"):
    """The run is over for this worker; it leaves with exit code 0."""

    reason: Reason


TrainerMessage = Welcome | Reject | Tickets | TrainerHeartbeat | Cancel | Stop
