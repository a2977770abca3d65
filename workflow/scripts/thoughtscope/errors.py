"""The exceptions a user is meant to read, and other exceptions in a line."""


class InputError(Exception):
    """Input that cannot be used: one line that quotes it, says what is allowed and what to do next."""


class HubUnreachable(InputError):
    """The Hugging Face hub can't be reached; what is needed from it can be fetched ahead, elsewhere."""


def first_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its message, which may be empty."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
