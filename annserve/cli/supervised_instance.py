"""The supervisor, as AdminService operates it: over its socket."""

from __future__ import annotations

from collections.abc import Sequence

from annserve.service.admin import InstanceStatus, Swap, Worker, WorkerState
from annserve.supervisor.control import ControlClient


class SupervisedInstance:
    """Implements `service.admin.Instance` by asking the supervisor."""

    def __init__(self, control: ControlClient) -> None:
        self._control = control

    async def status(self) -> InstanceStatus:
        """Return how the instance is."""
        told = await self._control.call("status")
        swap = told.pop("last_swap")
        return InstanceStatus(**told, last_swap=None if swap is None else Swap(**swap))

    async def workers(self) -> Sequence[Worker]:
        """Return the workers, by slot."""
        told = await self._control.call("workers")
        workers = [Worker(**{**one, "state": WorkerState(one["state"])}) for one in told["workers"]]
        return sorted(workers, key=lambda worker: worker.slot)

    async def activate(self, snapshot_id: str) -> None:
        """Serve a snapshot."""
        await self._control.call("activate", snapshot_id=snapshot_id)

    async def reload(self) -> None:
        """Serve the live snapshot, loaded anew."""
        await self._control.call("reload")

    async def scale(self, worker_count: int) -> None:
        """Have so many workers."""
        await self._control.call("scale", workers=worker_count)

    async def restart_worker(self, slot: int) -> None:
        """Replace a worker."""
        await self._control.call("restart_worker", slot=slot)

    async def drain(self) -> None:
        """Say in health that calls are not welcome."""
        await self._control.call("drain")

    async def undrain(self) -> None:
        """Say in health that they are."""
        await self._control.call("undrain")
