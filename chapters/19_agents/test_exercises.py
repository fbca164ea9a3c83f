"""Self-checks of chapter 19."""
