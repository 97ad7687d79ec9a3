// The instruction sets of this build, and the one in use.

#ifndef CPU_ISA_H
#define CPU_ISA_H

#include "strips.h"

namespace jax_mps_neuron {

// The kernels of the instruction set in use, by default the newest that this CPU has. `neuron_type` must be the
// raw value of a type.
const Kernels& kernels(Storage storage, int neuron_type);

}  // namespace jax_mps_neuron

#define JMN_EXPORT extern "C" __attribute__((visibility("default")))

// The name of the i-th instruction set that this CPU has, newest first. Null past the last.
JMN_EXPORT const char* jmn_isa(int i);
// The name of the instruction set in use.
JMN_EXPORT const char* jmn_current_isa();
// Selects an instruction set by name. Returns 0, or 1 and changes nothing if this CPU does not have it.
JMN_EXPORT int jmn_use_isa(const char* name);

#endif  // CPU_ISA_H
