// The instruction sets the kernels were compiled for, and the one in use.

#ifndef CPU_ISA_H
#define CPU_ISA_H

#include "strips.h"

namespace jax_mps_neuron {

// Kernels of the instruction set in use, by default the newest one that this CPU has.
const Kernels& kernels(Storage storage, int neuron_type);

}  // namespace jax_mps_neuron

#define JMN_EXPORT extern "C" __attribute__((visibility("default")))

// The i-th instruction set that this CPU has, newest first; null past the last.
JMN_EXPORT const char* jmn_isa(int i);
// The name of the one in use.
JMN_EXPORT const char* jmn_current_isa();
// Uses the named one. Returns 0, or 1 if `name` is not among jmn_isa(i); then nothing changes.
JMN_EXPORT int jmn_use_isa(const char* name);

#endif  // CPU_ISA_H
