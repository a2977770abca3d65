"""The one exception a user is meant to read."""


class InputError(Exception):
    """Input that cannot be used: one line that quotes it, says what is allowed and what to do next."""
