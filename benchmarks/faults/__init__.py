"""Faults put into a running service of real processes, and what must be true afterwards.

python -m benchmarks.faults --trials 100 --seed 1
"""
