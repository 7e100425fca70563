"""What a command says when it cannot go on."""


class Failure(Exception):
    """Its str is for the user: what is wrong, with the value, and the remedy."""


class Interrupted(Failure):
    """Ctrl-C, with words for what goes on or was stopped."""
