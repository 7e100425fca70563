"""Names of files as clients give them, made safe to store and show."""

from unicodedata import bidirectional, category

NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # what steers a terminal, bytes of an unknown encoding, ends of lines
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # of the direction of what stands around


def legible(name: str) -> str:
    """Without what is no text, or would change the line that the name stands in: the image is as good."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_odd(sign) else sign for sign in name)


def _is_odd(sign: str) -> bool:
    return category(sign) in NO_TEXT or bidirectional(sign) in TURNS
