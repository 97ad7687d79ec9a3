"""The primitives and the differentiable functions built on them. Knows no platform."""
