"""The precision of computations."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return float64 tensors unchanged, and integers and half precision as float32.

    Sums, exponentials and statistics in half precision overflow or lose most digits; float64 stays, so that
    `torch.autograd.gradcheck` holds.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.float16)).dtype
        torch.float32
        >>> at_least_float32(torch.ones(1, dtype=torch.float64)).dtype
        torch.float64
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
