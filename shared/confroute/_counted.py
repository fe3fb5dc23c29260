"""A number with what it counts."""


def counted(n: int, noun: str) -> str:
    """`n` and the noun, which takes an s unless it is one.

    Examples
    --------
    >>> counted(1, "token"), counted(0, "token")
    ('1 token', '0 tokens')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
