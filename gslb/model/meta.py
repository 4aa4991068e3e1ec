"""What every piece of desired state carries beside its value."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Meta:
    """Owner, history and author of a resource; times are UTC."""

    name: str
    owner: str = "default"
    generation: int = 0
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    principal: str = "anonymous"
