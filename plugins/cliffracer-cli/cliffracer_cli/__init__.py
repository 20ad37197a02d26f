"""cliffracer-cli."""
