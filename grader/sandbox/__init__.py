"""One untrusted process, and the wire to it."""
