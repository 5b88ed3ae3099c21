"""The door to accelerate: ranks, mixed precision, gradient synchronisation, experiment trackers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from luthier.errors import MissingPackage

# What each tracker calls the name of a run.
_RUN_NAMES = {"wandb": "name", "mlflow": "run_name", "swanlab": "experiment_name", "trackio": "name"}

BUCKET = 2**25
"""Values that ranks exchange at once: large enough for the network, small beside the gradients."""

_T = TypeVar("_T")


class Engine:
    """One process's view of the machine. With one process every collective call is the identity."""

    def __init__(
        self, precision: str = "no", cpu: bool = False, trackers: Sequence[str] = (), logs: Path | None = None
    ):
        missing = [name for name in trackers if not _installed(name)]
        if missing:
            raise MissingPackage(missing[0], f"report_to: {missing[0]}", missing[0])
        # accelerate remembers the first precision of a process for good; a notebook may train twice.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self._accelerator = Accelerator(
            mixed_precision=precision,
            cpu=cpu,
            log_with=list(trackers) or None,
            project_dir=str(logs) if logs else None,
        )
        self._tracking = bool(trackers)

    @property
    def rank(self) -> int:
        return int(self._accelerator.process_index)

    @property
    def world(self) -> int:
        return int(self._accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return self._accelerator.device

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Place both on the device. The model gets no data-parallel wrapper, whose exchange of gradients
        inside the backward pass would leave the other ranks waiting when one of them cannot go on; instead
        `sum_gradients` exchanges them. All ranks start from the main one's trained weights.
        """
        model = self._accelerator.prepare_model(model, evaluation_mode=True)
        if self.world > 1:
            for parameter in model.parameters():
                if parameter.requires_grad:
                    torch.distributed.broadcast(parameter.data, 0)
        return model, self._accelerator.prepare_optimizer(optimizer)

    def unwrap(self, model: nn.Module) -> nn.Module:
        return self._accelerator.unwrap_model(model)

    def sum(self, value: float) -> float:
        """Sum of a number over all ranks, in double precision where the device has it."""
        if self.world == 1:
            return value
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        return float(self._accelerator.reduce(torch.tensor(value, dtype=kind, device=self.device), "sum"))

    def gather(self, value: _T) -> list[_T]:
        """What every rank says, in the order of ranks, on every rank. Small plain values only."""
        return [value] if self.world == 1 else list(gather_object([value]))

    def backward(self, loss: Tensor) -> None:
        """Add this rank's gradients."""
        self._accelerator.backward(loss)

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over ranks. One that no rank has stays absent: its parameter
        would otherwise decay on several ranks, but not on one.
        """
        if self.world == 1:
            return
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        torch.distributed.all_reduce(has)
        used = [p for p, ranks in zip(parameters, has.tolist(), strict=True) if ranks]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in used if p.grad is not None]):
            flat = torch.cat([grad.flatten() for grad in bucket])
            torch.distributed.all_reduce(flat)
            for grad, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                grad.copy_(part.view_as(grad))

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:
        """L2 norm of all gradients before clipping them to `limit` (<= 0: measured only)."""
        norm = self._accelerator.clip_grad_norm_(list(parameters), limit if limit > 0 else float("inf"))
        return float(norm)

    def rescales(self) -> bool:
        """True in fp16, where an overflow now and then is expected: the scaler skips that update."""
        scaler = self._accelerator.scaler
        return scaler is not None and scaler.get_scale() > 1.0

    def scale(self) -> dict[str, float]:
        """What fp16's gradient scaler has come to; {} where there is none."""
        scaler = self._accelerator.scaler
        return {} if scaler is None else {key: float(value) for key, value in scaler.state_dict().items()}

    def rescale(self, state: Mapping[str, float]) -> None:
        """Go on with the scale of a checkpoint: another one would skip other updates."""
        scaler = self._accelerator.scaler
        if scaler is not None and state:
            whole = ("growth_interval", "_growth_tracker")
            scaler.load_state_dict({k: int(v) if k in whole else v for k, v in state.items()})

    def shared(self, value: Any) -> Any:
        """The main process's value, on every rank."""
        if self.world == 1:
            return value
        return broadcast_object_list([value])[0]

    def start_tracking(self, project: str, run_name: str | None, config: Mapping[str, Any]) -> None:
        """Open the trackers; TensorBoard has no name for a run but its directory."""
        if self._tracking:
            plain = {k: v for k, v in config.items() if isinstance(v, (int, float, str, bool))}
            named = {tracker: {key: run_name} for tracker, key in _RUN_NAMES.items()} if run_name else {}
            self._accelerator.init_trackers(project, config=plain, init_kwargs=named)

    def track(self, values: Mapping[str, float], step: int) -> None:
        if self._tracking:
            self._accelerator.log(dict(values), step=step)

    def end(self) -> None:
        if self._tracking:
            self._accelerator.end_training()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in their order, in runs of one dtype and of at most BUCKET values (a larger tensor alone)."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        size = sum(t.numel() for t in bucket) + tensor.numel()
        if bucket and (size > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
