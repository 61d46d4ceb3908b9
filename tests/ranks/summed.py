"""Run by torchrun in two processes: gradients that some ranks lack."""

import torch
from torch import nn

from segtrain import ranks

with ranks.process_group("cpu"):
    here, other = ranks.rank(), 1 - ranks.rank()
    parameters = [nn.Parameter(torch.ones(2, 3)) for _ in range(5)]
    parameters[4].requires_grad_(False)
    both, by_first, by_second, by_none, frozen = parameters
    both.grad = torch.full((2, 3), 1.0 + here)
    (by_first if ranks.is_main() else by_second).grad = torch.full((2, 3), 10.0 + here)
    optimizer = torch.optim.SGD(parameters[:4], lr=1.0, weight_decay=1.0)
    ranks.sum_gradients(parameters)
    assert by_none.grad is None and frozen.grad is None
    for parameter, total in ((both, 3.0), (by_first, 10.0), (by_second, 11.0)):
        assert torch.equal(parameter.grad, torch.full((2, 3), total)), (here, parameter.grad)
    optimizer.step()
    assert torch.equal(by_none, torch.ones(2, 3))  # without a gradient, no weight decay either
    for one in parameters:
        mine, theirs = ranks.all_gather(one.detach())
        assert torch.equal(mine, theirs)
    if ranks.is_main():
        print("all equal")
