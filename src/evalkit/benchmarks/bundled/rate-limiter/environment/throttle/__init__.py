"""How often somebody may do something."""

from .bucket import Bucket
from .limiter import ANY, Limiter

__all__ = ["ANY", "Bucket", "Limiter"]
