"""Many jobs, few browsers."""

from .pool import Pool, PoolClosed
from .runner import run_all

__all__ = ["Pool", "PoolClosed", "run_all"]
