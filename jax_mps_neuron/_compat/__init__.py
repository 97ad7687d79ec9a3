"""The differences between the supported versions of JAX, each in one place. Knows nothing of neurons."""
