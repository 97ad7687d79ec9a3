"""`jmn.metal.jit`: cuts a program at its neuron calls. Knows the primitives, not their lowering."""
