"""The Hugging Face hub: what went wrong there, in one line."""

from .errors import HubUnreachable, InputError, first_line


def failure(key: str, what: str, error: BaseException) -> InputError:
    """Return the exception to raise where the hub gave an error instead of `what`, which the config's `key` names.

    HubUnreachable unless the hub itself refused. `error` is whatever its client raised: its own, its transport's or the
    system's exceptions.
    """
    from huggingface_hub.errors import HfHubHTTPError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 500
    if status < 500 and status not in (408, 429):  # these two: come back later
        return InputError(
            f"config: {key}: the hub doesn't give {what} ({first_line(error)}). Check name and revision; if it is"
            " private or gated, log in with 'hf auth login'."
        )
    return HubUnreachable(
        f"config: {key}: {what} can't be fetched ({first_line(error)}). It needs the Hugging Face hub."
    )
