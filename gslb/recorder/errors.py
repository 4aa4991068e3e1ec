"""What can be wrong with a recording."""

from gslb.model.errors import GslbError


class RecordingError(GslbError):
    """A recording cannot be read, or has nothing of the time that was asked for."""
