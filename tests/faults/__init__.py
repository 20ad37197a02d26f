"""Faults injected into real processes; README.md says which, how often, and how to run them in full."""
