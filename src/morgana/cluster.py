"""Ray, and the only door to it: tasks in order over a cluster, and actors that answer together.

Ray is an extra (`pip install "morgana[ray]"`) and is imported when a cluster is asked for, never before. What travels
is plain data and the spec of a part; a worker builds the part again from its spec and keeps it for the next task.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from morgana.spec import parse
from morgana.types import MorganaError, SpecError, StoreError

STORE = 128 << 20  # bytes of the object store of a cluster that we start ourselves
RETRIES = 5  # how often a task is given to another worker when its own dies

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster: of `address` (`auto`, `ray://HOST:10001`, `HOST:6379`), or on this machine alone.

    Each task takes `cpus` and `gpus` of one node. A cluster that this process is connected to already is used.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def ray(self) -> Any:
        """The connected library; SpecError where it is not installed, StoreError where there is no cluster."""
        return connected(self.address)

    @property
    def slots(self) -> int:
        """How many tasks run at a time."""
        there = self.ray.cluster_resources()
        by_gpu = there.get("GPU", 0) / self.gpus if self.gpus else float("inf")
        return max(1, int(min(by_gpu, there.get("CPU", 1) / self.cpus)))

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """`function` of each item, in order; at most twice as many items as slots are on the way.

        A task whose worker or node dies is given to another. A Morgana error in a worker is raised here as it is.
        """
        task = self.ray.remote(function).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        ahead, waiting = 2 * self.slots, deque[Any]()
        for item in items:
            waiting.append(task.remote(item))
            if len(waiting) > ahead:
                yield self.get(waiting.popleft())
        while waiting:
            yield self.get(waiting.popleft())

    def actors(self, cls: type[Any], each: Sequence[tuple[object, ...]]) -> list[Any]:
        """One actor for each tuple of arguments, spread over the nodes; one that dies is started again elsewhere."""
        made = self.ray.remote(cls).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        return [made.remote(*arguments) for arguments in each]

    def get(self, reference: Any) -> Any:
        """What a task or an actor gave, or what it raised."""
        ray = self.ray
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MorganaError):
                raise error.cause from None
            raise
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
            last = str(error).strip().split("\n")[-1][:200]
            if "never ran" in last:  # nothing died; so it ends where a cluster cannot call back to this process
                todo = "see whether RAY_AUTH_MODE is the same here and where the cluster was started"
                raise StoreError(f"the cluster would not start a worker: {last} {todo}") from error
            raise StoreError(f"workers of the cluster died {RETRIES + 1} times over one piece: {last}") from error


def connected(address: str | None) -> Any:
    """Ray, connected to `address`; without one to that of RAY_ADDRESS, else one that runs here, else one of our own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as later versions of Ray do anyway
    try:
        import ray
    except ImportError:
        raise SpecError('a cluster needs Ray, which is not installed: pip install "morgana[ray]"') from None
    if ray.is_initialized():
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    try:
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address or os.environ.get("RAY_ADDRESS"):
                raise
            ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **quiet)
    except Exception as error:  # Ray raises bare ones
        why, where = str(error).strip().split("\n")[0][:200], address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise StoreError(f"no Ray cluster answers at {where}: {why}; start one: ray start --head") from error
    return ray


@cache
def built(spec: str) -> Any:
    """The part of a spec, in a worker that keeps it."""
    return parse(spec)


def spelled(part: object) -> str:
    """The spec by which workers build a part again; SpecError if it has none."""
    spec = repr(part)
    try:
        same = repr(parse(spec)) == spec
    except MorganaError:
        same = False
    if not same:
        raise SpecError(
            f"{spec[:120]} cannot travel to workers, as it is no registered part; use one of `morgana list`"
        )
    return spec
