"""The family of errors that end the DNS frontend or are shown to its operator."""

from gslb.model.errors import GslbError


class FrontendError(GslbError):
    """Something the operator can put right; the message names the value and says what to do."""
