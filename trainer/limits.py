"""Settings that can't work are refused before anything starts, with the inequality they break."""

import ipaddress
from urllib.parse import urlsplit

from monitoring.address import parse_address
from protocol.errors import UserError
from trainer.config import TrainerConfig
from trainer.objectives.needs import NEEDS

RING_BATCHES = 16
WINDOW_BATCHES = 4


def window_groups(config: TrainerConfig) -> int:
    """`stream.window_groups`, or 4 batches."""
    return config.stream.window_groups or WINDOW_BATCHES * config.train.batch_groups


def ring_groups(config: TrainerConfig) -> int:
    """`stream.ring_groups`, or 16 batches."""
    return config.stream.ring_groups or RING_BATCHES * config.train.batch_groups


def min_fresh_groups(config: TrainerConfig) -> int:
    """Groups of a batch that must be fresh: all of them where nothing may be used twice."""
    batch = config.train.batch_groups
    return batch if config.stream.max_reuse == 1 else -int(-config.stream.min_fresh * batch // 1)


def reuse_max(config: TrainerConfig) -> float:
    """The highest effective reuse: `stream.max_reuse`, or less where `stream.min_fresh` asks for it."""
    min_fresh = config.stream.min_fresh
    return min(config.stream.max_reuse, 1 / min_fresh) if min_fresh else float(config.stream.max_reuse)


def check(config: TrainerConfig, ranks: int = 1) -> None:
    """Raises UserError for the first rule that the settings break, with so many trainer ranks."""
    stream = config.stream
    _check_reuse(config)
    if ranks > 1:
        _check_ranks(config, ranks)
    _check_objective(config)
    _need(
        config.generation.draw_size == 0 or config.generation.draw_size >= config.generation.size,
        "generation.draw_size",
        f"draw_size >= generation.size = {config.generation.size}, since images are scaled down to it",
        str(config.generation.draw_size),
        "set it to 0; augment.crop_size scales images up where the encoder wants larger ones",
    )
    if config.monitor.bind:
        parse_address(config.monitor.bind, "monitor.bind")
    _need(
        config.train.export != "ema" or config.train.ema_decay > 0,
        "train.export",
        "train.ema_decay > 0, since train.export = ema saves the average",
        str(config.train.ema_decay),
        "set it, for example to 0.999, or set train.export = trained",
    )
    _check_pool(config, ranks)
    _need(
        config.train.warmup_steps < config.run.max_steps,
        "train.warmup_steps",
        f"warmup_steps < run.max_steps = {config.run.max_steps}",
        str(config.train.warmup_steps),
        "lower it",
    )
    _need(
        stream.insecure_bind or bool(stream.keys) or is_loopback(stream.bind),
        "stream.bind",
        "keys or a loopback address, since anyone who can reach the port may send images",
        stream.bind,
        "make keys with `streamrep keys trainer` and set stream.keys, bind to tcp://127.0.0.1:PORT, or set"
        " stream.insecure_bind = true on a network that you trust",
    )


def _check_reuse(config: TrainerConfig) -> None:
    """Bounded reuse. With batches of B groups, R = max_reuse, m = min_fresh, W = window_groups, C =
    ring_groups and G = reuse_gap, at every moment

        groups trained <= uses <= R x groups trained,    groups leased or received, untrained <= W,

    and a batch has f fresh groups and B - f of the ring, m B <= f <= B. In the long run f >= B / R, so the
    trainer takes at most R / B steps for each group that generators bring. This can't be kept, and is
    refused, unless

        W >= B              a batch of fresh groups fits into the window
        C >= 16 B           the ring mixes groups of many steps (R > 1)
        C >= (G + 1) B      G batches of the ring are barred, and one is left to fill a batch (R > 1)

    and in ticket order, where f = B / R, R divides B and m <= 1 / R. `stream.reuse = "auto"` chooses f
    between max(m B, B / R) and B, so it needs R > 1 and arrival order.
    """
    stream, batch = config.stream, config.train.batch_groups
    window, ring = window_groups(config), ring_groups(config)
    _need(
        window >= batch,
        "stream.window_groups",
        f"window_groups >= train.batch_groups = {batch}",
        str(window),
        "a batch could never be formed; raise it, or lower train.batch_groups",
    )
    _need(
        stream.max_reuse == 1 or ring >= RING_BATCHES * batch,
        "stream.ring_groups",
        f"ring_groups >= {RING_BATCHES} x train.batch_groups = {RING_BATCHES * batch}",
        str(ring),
        "raise it, or set it to 0",
    )
    _need(
        stream.max_reuse == 1 or ring >= (stream.reuse_gap + 1) * batch,
        "stream.reuse_gap",
        f"(reuse_gap + 1) x train.batch_groups <= ring_groups = {ring}",
        f"({stream.reuse_gap} + 1) x {batch} = {(stream.reuse_gap + 1) * batch}",
        "the ring could never fill a batch; lower reuse_gap or raise ring_groups",
    )
    if stream.order == "ticket":
        _check_ticket_order(config)
    _need(
        stream.reuse == "eager" or stream.order == "arrival",
        "stream.reuse",
        "eager, since stream.order = ticket fixes the reuse of every group",
        stream.reuse,
        "set stream.reuse = eager, or stream.order = arrival",
    )
    _need(
        stream.reuse == "eager" or reuse_max(config) > 1,
        "stream.reuse",
        "max_reuse > 1 and min_fresh < 1, between which stream.reuse = auto moves",
        f"max_reuse = {stream.max_reuse}, min_fresh = {stream.min_fresh:g}",
        "raise max_reuse or lower min_fresh, or set stream.reuse = eager",
    )


def _check_ticket_order(config: TrainerConfig) -> None:
    stream, batch = config.stream, config.train.batch_groups
    _need(
        batch % stream.max_reuse == 0,
        "stream.max_reuse",
        f"train.batch_groups = {batch} to be a multiple of max_reuse, since stream.order = ticket takes"
        " batch_groups / max_reuse new groups a step",
        str(stream.max_reuse),
        "choose a divisor, or stream.order = arrival",
    )
    _need(
        stream.min_fresh * stream.max_reuse <= 1,
        "stream.min_fresh",
        f"min_fresh <= 1 / max_reuse = {1 / stream.max_reuse:.3g}, the fresh share in ticket order",
        f"{stream.min_fresh:g}",
        "lower it, or lower max_reuse",
    )


def _check_ranks(config: TrainerConfig, ranks: int) -> None:
    batch, reuse = config.train.batch_groups, config.stream.max_reuse
    in_order = config.stream.order == "ticket"
    new = batch // reuse if in_order else batch
    what = f"{batch} / stream.max_reuse = {new}" if in_order else str(batch)
    _need(
        new % ranks == 0,
        "train.batch_groups",
        f"batch_groups = {what} to be a multiple of the {ranks} ranks, each of which trains on its part",
        f"{new} / {ranks} = {new / ranks:g}",
        "choose a multiple, or other ranks",
    )
    _need(
        config.stream.reuse == "eager",
        "stream.reuse",
        "eager with several ranks, each of which would measure its own waiting",
        f"{config.stream.reuse} on {ranks} ranks",
        "set stream.reuse = eager, or start one rank",
    )
    for value, where in ((config.pool.write, "pool.write"), (config.pool.replay, "pool.replay")):
        _need(not value, where, "one rank", f"{ranks} ranks", "start one, or leave it out")


def _check_pool(config: TrainerConfig, ranks: int) -> None:
    _need(
        bool(config.pool.dir) or not (config.pool.write or config.run.mode != "online"),
        "pool.dir",
        f"a folder, since run.mode = {config.run.mode} and pool.write = {str(config.pool.write).lower()}",
        "none",
        "set pool.dir",
    )
    if config.run.mode == "mixed":
        _check_share(config, ranks)


def _check_share(config: TrainerConfig, ranks: int) -> None:
    """A share that every rank's batch can have, in ticket order each block of it."""
    pool, batch = config.pool, config.train.batch_groups
    in_order = config.stream.order == "ticket"
    groups = (batch // config.stream.max_reuse if in_order else batch) // ranks
    what = "train.batch_groups / stream.max_reuse" if in_order else "train.batch_groups"
    what += f" / {ranks} ranks" if ranks > 1 else ""
    part = pool.share * groups
    _need(
        round(part) >= 1 and abs(part - round(part)) < 1e-6,
        "pool.share",
        f"share x {what} = share x {groups} to be a whole number of groups above 0",
        f"{pool.share:g} x {groups} = {part:g}",
        f"choose a multiple of 1 / {groups}",
    )
    _need(
        pool.share < 1 or pool.until > 0,
        "pool.share",
        "a share below 1, or an end to it in pool.until",
        "1 for ever",
        "that is run.mode = offline",
    )


def _check_objective(config: TrainerConfig) -> None:
    name, views = config.train.objective, config.generation.views
    needs = NEEDS[name]
    _need(
        views >= needs.views_min,
        "generation.views",
        f"at least {needs.views_min} views, {needs.views_why}",
        str(views),
        f"raise it, or choose another train.objective than {name}",
    )
    _need(
        views <= needs.views_max,
        "generation.views",
        f"at most {needs.views_max} view, {needs.views_why}",
        str(views),
        "lower it and raise train.batch_groups for as many images,"
        f" or choose another train.objective than {name}",
    )
    _need(
        not needs.classes or bool(config.captions.classes),
        "captions.classes",
        f"a list of class names, since train.objective = {name} has them as labels",
        "none",
        "name a file with one class name a line",
    )
    model_type = config.model.encoder.get("model_type")
    _need(
        "folder" in config.model.encoder or not needs.model_types or model_type in needs.model_types,
        "model.encoder",
        f"model_type {' or '.join(needs.model_types)}, since train.objective = {name} trains nothing else",
        repr(model_type),
        "change it, or choose another train.objective",
    )


def is_loopback(endpoint: str) -> bool:
    """Whether nobody outside this machine can reach the endpoint."""
    parts = urlsplit(endpoint)
    if parts.scheme in ("ipc", "inproc"):
        return True
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _need(holds: bool, where: str, expected: str, got: str, mend: str) -> None:
    if not holds:
        raise UserError("impossible setting", expected=expected, got=got, where=where, mend=mend)
