"""How a call becomes StableHLO: the routes and rules, and what each emits. Knows no primitive."""
