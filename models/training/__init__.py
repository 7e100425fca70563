"""Training of the networks, as library code; the commands are `pansynth train vae` and `pansynth train denoiser`."""
