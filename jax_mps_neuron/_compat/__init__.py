"""What differs between the supported versions of JAX, settled once. Knows nothing of neurons."""
