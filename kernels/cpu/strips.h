// The interface between the kernels of an instruction set and the code that cuts arrays into strips.

#ifndef CPU_STRIPS_H
#define CPU_STRIPS_H

#include <cmath>
#include <cstdint>

#include "../neuron_math.h"

namespace jax_mps_neuron {

#define RAW(raw, Op) raw,
constexpr int kRawTypes[] = {NEURON_TYPES(RAW)};
#undef RAW
constexpr int kNeuronTypes = sizeof kRawTypes / sizeof kRawTypes[0];

// The position in tables of the type with a raw value, or kNeuronTypes if there is no such type.
constexpr int position_of(int64_t neuron_type) {
  int i = 0;
  while (i < kNeuronTypes && kRawTypes[i] != neuron_type) ++i;
  return i;
}

enum class Storage { float32, float16, bfloat16, float64 };
constexpr int kStorages = 4;

// Floats in the widest vector of any instruction set.
constexpr int kMostLanes = 16;

// Rows of `width` elements, `stride` elements apart, in the arrays' dtype. Scalars and per-column arrays have the
// compute type: double for float64, float otherwise. `result` may be `gradient`: kernels read an element before they
// write it. Per-column arrays are padded by kMostLanes beyond the last column. Kernels read the padding, and write the
// padding of sums back unchanged.
struct Strip {
  const void* gradient;  // unused by forward
  const void* x;         // y = f(z) for gradient_of_value
  void* result;
  const void* bias;      // [width...]; null for z = alpha * x without sums
  const void* slope;     // [width...]; PReLU only
  const void* scalars;   // alpha, a, b, c
  void* bias_sum;        // [width...], added to; null without sums
  void* slope_sum;       // [width...], added to; PReLU only, null exactly if bias_sum is
  int64_t rows, width, stride;
};

struct Kernels {
  void (*forward)(const Strip&);
  void (*gradient)(const Strip&);
  void (*gradient_of_value)(const Strip&);  // null if f(z) does not determine f'
};

// Kernels by position_of a type, for one storage type.
using KernelTable = Kernels[kNeuronTypes];

}  // namespace jax_mps_neuron

#endif  // CPU_STRIPS_H
