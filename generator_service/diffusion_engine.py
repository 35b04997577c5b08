"""The engine for Stable Diffusion's families: one sampler, and whichever `Forward` was chosen."""

import random
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import msgspec
import numpy as np
import torch

from generator_service.config import GeneratorConfig
from generator_service.devices import device_name, resolve_device, resolve_dtype
from generator_service.engine import Abandoned, check_ticket, groups_of
from generator_service.engine_choice import choose
from generator_service.errors import NonFiniteError, OutOfDeviceMemoryError
from generator_service.families import load_family
from generator_service.model_folder import ModelFolder
from generator_service.output_copy import Copying
from generator_service.recipes import LIBRARIES
from generator_service.sampler import Sampler
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.identity import digest_of
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

_WARM_UP_SEED = 20240229


class DiffusionEngine:
    """Pads every draw to the static batch, so that a group's pixels do not depend on its neighbours."""

    def __init__(
        self,
        config: GeneratorConfig,
        folder: ModelFolder,
        weights: str,
        spec: GenerationSpec,
        abandoned: Abandoned,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Loads, builds where the engine has to be, and warms up. `weights` is the folder's digest.

        Raises UserError, DrawAbandonedError.
        """
        self._spec = spec
        self._groups = groups_of(config.batch_images, spec)
        if config.threads:
            torch.set_num_threads(config.threads)
        device = resolve_device(config.device)
        dtype = resolve_dtype(config.precision, device)
        # Benchmarking picks kernels by timing, so two starts could draw other bits.
        torch.backends.cudnn.benchmark = False
        self._device_name = device_name(device)
        model = load_family(folder, device=device, dtype=dtype)
        # First of all, since it refuses in a moment what an engine would be built for in minutes.
        self._sampler = Sampler(model, spec, groups=self._groups)
        chosen = choose(config, model, weights, spec, self.batch_images, abandoned, say)
        if config.engine == "auto":
            say(f"engine {chosen.name}: {chosen.why}")
        self._sampler.compute_with(chosen.forward, in_graph=config.cuda_graphs)
        precision = str(dtype).removeprefix("torch.")
        self.content_hash = digest_of({"weights": weights, "generation": msgspec.to_builtins(spec)})
        self.engine_hash = digest_of(
            {
                "engine": chosen.name,
                **({"built": chosen.digest} if chosen.digest else {}),
                **({"cuda_graphs": True} if config.cuda_graphs else {}),
                "precision": precision,
                "batch_images": self.batch_images,
                "libraries": {name: version(name) for name in LIBRARIES},
                "device": self._device_name,
                # The order of a sum on a CPU follows how it is shared out.
                "threads": torch.get_num_threads() if device.type == "cpu" else 0,
            }
        )
        self.summary = f"{chosen.name} engine on {self._device_name}, {precision}, model {config.model}"
        try:
            self.exact, self.batch_seconds = self._warm_up(abandoned)
        except NonFiniteError as error:
            raise UserError(
                "the model overflows",
                expected=f"latents that are finite in {precision}",
                got=str(error),
                where=config.model,
                mend="set generator.precision to bfloat16 or float32",
            ) from error

    @property
    def batch_images(self) -> int:
        """Static batch in images: the groups that fit, whole."""
        return self._groups * self._spec.views

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        """See `Engine.draw`. The groups are views of one array."""
        return self.begin(tickets, abandoned).groups()

    def begin(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> "_Begun":
        """See `Engine.begin`."""
        if not 0 < len(tickets) <= self._groups:
            raise ValueError(f"expected 1 to {self._groups} tickets, got {len(tickets)}")
        for ticket in tickets:
            check_ticket(ticket, self._spec)
        views, spare = self._spec.views, self._groups - len(tickets)
        captions = [ticket.caption for ticket in tickets] + [""] * spare
        seeds_N = [seed for ticket in tickets for seed in ticket.seeds] + [0] * (spare * views)
        guidance_N = [scale for ticket in tickets for scale in ticket.guidance]
        guidance_N += [self._spec.guidance[0]] * (spare * views)
        try:
            copying = self._sampler.begin(captions, seeds_N, guidance_N, abandoned)
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise OutOfDeviceMemoryError(self._device_name, self.batch_images, str(error)) from error
            raise
        return _Begun(copying, len(tickets), views)

    def cuts(self, caption: str) -> bool:
        """See `Engine.cuts`."""
        return self._sampler.cuts(caption)

    def _warm_up(self, abandoned: Abandoned) -> tuple[bool, float]:
        """One probe in the first and in the last slot, among other neighbours; the second draw is timed."""
        dice = random.Random(_WARM_UP_SEED)
        probe = self._random_ticket(dice)
        neighbours = [self._random_ticket(dice) for _ in range(2 * (self._groups - 1))]
        half = self._groups - 1
        first = self.draw([probe, *neighbours[:half]], abandoned)[0]
        started = time.monotonic()
        last = self.draw([*neighbours[half:], probe], abandoned)[-1]
        return bool(np.array_equal(first, last)), time.monotonic() - started

    def _random_ticket(self, dice: random.Random) -> Ticket:
        views = self._spec.views
        return Ticket(
            group_id=0,
            caption_id=0,
            caption="".join(dice.choices("abcdefgh ", k=12)),
            first_view=0,
            seeds=tuple(dice.getrandbits(32) for _ in range(views)),
            guidance=tuple(dice.choice(self._spec.guidance) for _ in range(views)),
        )


class _Begun:
    """The tickets' groups among those of a static batch. See `Drawing`."""

    def __init__(self, copying: Copying, groups: int, views: int) -> None:
        self._copying, self._images, self._views = copying, groups * views, views

    @property
    def arrived(self) -> bool:
        return self._copying.arrived

    def groups(self) -> list[ImagesNHWC]:
        images_NHWC, broken = self._copying.wait()
        guilty = [image for image in broken if image < self._images]
        if guilty:
            raise NonFiniteError(guilty[0], len(guilty), self._images)
        starts = range(0, self._images, self._views)
        return [images_NHWC[start : start + self._views] for start in starts]


def _is_out_of_memory(error: Exception) -> bool:
    """On a CPU torch's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
