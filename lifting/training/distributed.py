"""Several processes train one model: sums, means and batch norms over all ranks, with gradients.

Every loss is a mean over the batch of ALL ranks, and every batch norm has the statistics of all: each rank then holds
the same loss, and the mean gradient that DistributedDataParallel takes is the gradient of a single process with the
whole batch. In a program of one process every function here does the plain thing.

Started by ``torchrun``, which says in the environment who is who. After a failure it starts all ranks anew, and they go
on from the last checkpoint.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(hours=1)  # ranks wait for each other so long: rank 0 alone validates and writes


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Joins the other processes that ``torchrun`` started, nccl for cuda, else gloo; alone, or if joined, does nothing.

    Raises ValueError for a backend that this build of torch lacks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    cuda = torch.device(device).type == "cuda"
    backend = "nccl" if cuda else "gloo"
    if not dist.is_backend_available(backend):
        raise ValueError(f"this torch has no {backend}, expected it for several processes; start one process instead.")
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, number, count = next(dist.rendezvous("env://"))
    # After a restart the addresses of the processes that died still lie in the store; gloo would wait for them.
    store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world() -> int:
    """Number of processes that train together; 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 is the one that writes."""
    return dist.get_rank() if world() > 1 else 0


class _AllReduce(torch.autograd.Function):
    """Sum over ranks. Backwards too: a rank's value is part of the sum that every rank's loss depends on."""

    @staticmethod
    def forward(context, values: Tensor) -> Tensor:  # noqa: ARG004  autograd's signature
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's ``values``, the same shape on all, differentiable."""
    return _AllReduce.apply(values) if world() > 1 else values


def mean_over_ranks(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the first axis of ``values`` (N, ...) of all ranks together; N may differ from rank to rank.

    weights: (N, ...) of the same shape, 0 or more; values of weight 0 may be anything finite. 0 where all weights are.
    """
    sums = (values if weights is None else values * weights).sum(0)
    counts = torch.full_like(sums, len(values)) if weights is None else weights.to(values.dtype).sum(0)
    if world() > 1:
        sums, counts = sum_over_ranks(torch.stack([sums, counts]))
    return sums / counts.clamp_min(torch.finfo(sums.dtype).tiny)


def any_rank(flag: bool, device: str = "cpu") -> bool:
    """Whether the flag is set on some rank; all ranks have to ask."""
    if world() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def wait_for_all() -> None:
    """Returns when every rank has come here."""
    if world() > 1:
        dist.barrier()


def from_first_rank(value: object) -> object:
    """The object that rank 0 passes, on every rank (what the others pass is ignored)."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class SharedBatchNorm1d(nn.BatchNorm1d):
    """Batch norm with the statistics of all ranks, on CPU too (torch's SyncBatchNorm needs a GPU).

    Ioffe and Szegedy, "Batch normalization", ICML 2015. Sums are taken about the running mean, which all ranks share,
    so that one pass over the data and one message are enough without losing digits. `lifting.models.strided` sums its
    own moments with `sum_over_ranks`.
    """

    sum_over_ranks = staticmethod(sum_over_ranks)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, T) or (N, C)."""
        if not self.training or world() == 1:
            return super().forward(x)
        values = x.to(self.weight.dtype)
        axes, shape = [axis for axis in range(x.ndim) if axis != 1], [1, -1] + [1] * (x.ndim - 2)
        shift = self.running_mean.clone()
        centred = values - shift.view(shape)
        count = centred.new_full((1,), values.numel() / values.shape[1])
        sums = sum_over_ranks(torch.cat([centred.sum(axes), centred.square().sum(axes), count]))
        offset, square = (sums[:-1] / sums[-1]).chunk(2)
        variance = (square - offset.square()).clamp_min(0)
        self._remember(shift + offset, variance, sums[-1])
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((centred - offset.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), self.momentum)


def share_batch_norms(network: nn.Module) -> nn.Module:
    """Replaces every BatchNorm1d in the network by one that shares its statistics, values kept; returns the network."""
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm1d:
            shared = SharedBatchNorm1d(child.num_features, child.eps, child.momentum)
            shared.to(child.weight.device, child.weight.dtype).load_state_dict(child.state_dict())
            setattr(network, name, shared.train(child.training))
        else:
            share_batch_norms(child)
    return network


def wrap(network: nn.Module) -> nn.Module:
    """The network for the forward pass: itself, or in a group under DistributedDataParallel with shared batch norms."""
    if world() == 1:
        return network
    # It minds how an axis of size 1 is strided, in the gradients of convolutions of one tap.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return nn.parallel.DistributedDataParallel(share_batch_norms(network))


class _MeanGradient(torch.autograd.Function):
    """The values themselves; backwards, the mean gradient of all ranks."""

    @staticmethod
    def forward(context, values: Tensor) -> Tensor:  # noqa: ARG004
        return values.view_as(values)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / world()


def share_gradient(parameter: Tensor) -> Tensor:
    """A parameter outside of what `wrap` wraps, with its gradient averaged likewise; for terms that come and go."""
    return _MeanGradient.apply(parameter) if world() > 1 else parameter
