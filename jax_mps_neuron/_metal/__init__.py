"""An Apple GPU: the Metal source, its launches, and PyObjC's Metal. Knows no JAX program."""
