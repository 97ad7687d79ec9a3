"""What a neuron is: its types, parameters, formulas, and the layout of a call. Knows no lowering."""
