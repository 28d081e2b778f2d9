"""Which trouble with the model hub may be over in a minute."""

#: Answers of a server that is busy, restarting, or behind a gateway that is.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


def may_pass(error: Exception) -> bool:
    """Whether asking the hub again may go through: a network that is away or a busy server, but no refusal.

    Args:
        error: What ``huggingface_hub`` or ``datasets`` raised.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING
    if isinstance(error, LocalEntryNotFoundError):  # nothing in the cache either; the cause says why the hub failed
        cause = error.__cause__
        return isinstance(cause, Exception) and may_pass(cause)
    if isinstance(error, OfflineModeIsEnabled):
        return False
    return isinstance(error, httpx2.TransportError | ConnectionError | TimeoutError)
