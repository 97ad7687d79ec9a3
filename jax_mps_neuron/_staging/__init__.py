"""`jmn.metal.jit`: a program cut at its neuron calls. Knows the primitives, not their lowering."""
