"""Telling others that a job has ended: the outbox, its sender, and whom it may tell."""
