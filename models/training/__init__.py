"""Training of the networks, as library code; the commands are those of `pansynth train`."""
