"""The `pansynth` command: one file per group, every heavy import inside the command that needs it."""
