"""cliffracer-discovery."""
