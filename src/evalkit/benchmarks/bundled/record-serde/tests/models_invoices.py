"""Other models, with names that are in use already."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass
class Line:
    text: str
    at: datetime
