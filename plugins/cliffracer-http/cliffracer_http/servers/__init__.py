"""HTTP servers behind one protocol."""
