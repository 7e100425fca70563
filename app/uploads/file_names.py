"""Names of files as clients give them, made safe to store and show."""

from unicodedata import category


def legible(name: str) -> str:
    """Without what is no text (bytes of an unknown encoding) or steers a terminal: the image is as good."""
    return "".join("\N{REPLACEMENT CHARACTER}" if category(sign) in ("Cc", "Cs") else sign for sign in name)
