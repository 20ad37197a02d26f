"""pytest-cliffracer."""
