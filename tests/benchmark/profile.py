"""Show where a transfer's CPU time goes, by function of the event loop's thread."""

from __future__ import annotations

import asyncio
import cProfile
import io
import os
import pstats
import resource
import time
from typing import TYPE_CHECKING, Any

from .child import warm_up
from .instruments import IterationTimer
from .line import LOOPBACK
from .options import add_lines, parse_size, parser, say
from .peers import open_peer, parse_peer
from .serving import serve
from .small import SMALL_CASES
from .target import LARGE, SMALL_SIZE, Target, payload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LINES = 30
_WARM_UP = 20_000_000


def _used(who: int) -> tuple[float, float]:
    usage = resource.getrusage(who)
    return usage.ru_utime, usage.ru_stime


async def _account(transfer: Callable[[], Awaitable[Any]]) -> str:
    """Transfer without the profiler, which slows Python down more than C, and tell whose the CPU time was."""
    start, process, thread = time.perf_counter(), _used(resource.RUSAGE_SELF), _used(resource.RUSAGE_THREAD)
    await transfer()
    after = _used(resource.RUSAGE_SELF), _used(resource.RUSAGE_THREAD)
    seconds = time.perf_counter() - start
    user, system = (now - then for now, then in zip(after[0], process, strict=True))
    loop_user, loop_system = (now - then for now, then in zip(after[1], thread, strict=True))
    return (
        f"{seconds:.3f} s; CPU of the loop's thread {loop_user:.3f} s user + {loop_system:.3f} s system, "
        f"of other threads {user - loop_user:.3f} s + {system - loop_system:.3f} s"
    )


async def profile(peer_name: str, case: str, size: int, target: Target) -> tuple[str, pstats.Stats]:
    """Transfer once without and once with the profiler."""
    data = payload(size)

    async with open_peer(peer_name, target, {}) as peer:

        async def transfer() -> Any:
            if case in SMALL_CASES:
                return await SMALL_CASES[case](peer, "profiled", IterationTimer())
            if case == "upload":
                return await peer.upload(io.BytesIO(data), "profiled")
            return await peer.download("profiled")

        await warm_up(peer, _WARM_UP)
        await peer.upload(io.BytesIO(data), "profiled")
        summary = await _account(transfer)
        # On the wall's clock, whose reading is cheap: the thread's own would triple what small functions seem to take.
        # Waiting for the network is all in one line, that of `poll`.
        profiler = cProfile.Profile()
        profiler.enable()
        await transfer()
        profiler.disable()
    return summary, pstats.Stats(profiler)


def _peer(name: str) -> str:
    if parse_peer(name)[0].own_environment is not None:
        raise ValueError(name)
    return name


def main() -> None:
    made = parser(__doc__)
    add_lines(made)
    made.add_argument("peer", type=_peer, help="e.g. ours, ours-unsigned, ours-8, minio")
    made.add_argument("case", choices=(*LARGE, *SMALL_CASES))
    made.add_argument("--size", type=parse_size, default="256MiB", help="size of a large object")
    arguments = made.parse_args()
    size = SMALL_SIZE if arguments.case in SMALL_CASES else arguments.size
    with serve(arguments.server, arguments.scheme, arguments.line, pin=arguments.pin) as service:
        target = service.reach(service.lines[0] if service.lines else LOOPBACK)
        os.environ.clear()
        os.environ.update(target.environment())
        if service.core is not None:
            os.sched_setaffinity(0, {service.core})
        summary, stats = asyncio.run(profile(arguments.peer, arguments.case, size, target))
    say(f"without the profiler: {summary}")
    for order in ("tottime", "cumtime"):
        stats.sort_stats(order).print_stats(_LINES)


if __name__ == "__main__":
    main()
