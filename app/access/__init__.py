"""Who gets in, whose rows a request sees, how much a key may use, and who did what."""
