"""What can be wrong with a story."""


class StoryError(ValueError):
    """The message says where (FILE:LINE), which value, and what to do."""
