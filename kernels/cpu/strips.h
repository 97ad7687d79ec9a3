// What the kernels of one instruction set offer to the code that cuts arrays into strips.

#ifndef CPU_STRIPS_H
#define CPU_STRIPS_H

#include <cstdint>

namespace jax_mps_neuron {

constexpr int kNeuronTypes = 16;
enum class Storage { float32, float16, bfloat16, float64 };
constexpr int kStorages = 4;

// Floats in the widest vector of any instruction set.
constexpr int kMostLanes = 16;

// Rows of `width` elements, `stride` elements apart, in the arrays' own dtype. Everything per column
// and the scalars are in the compute type: double for float64, float for the rest. `result` may be
// `gradient`: each element is read before it is written. What is per column goes on past the last one, by
// kMostLanes: that is read and, for the sums, written back as it was.
struct Strip {
  const void* gradient;  // unused by forward
  const void* x;         // y = f(z) for gradient_of_value
  void* result;
  const void* bias;      // [width...], or null for z = alpha * x where no sum is wanted
  const void* slope;     // [width...], PReLU alone
  const void* scalars;   // alpha, a, b, c
  void* bias_sum;        // [width...], added to; null if neither sum is wanted
  void* slope_sum;       // [width...], added to; PReLU alone, null exactly when bias_sum is
  int64_t rows, width, stride;
};

struct Kernels {
  void (*forward)(const Strip&);
  void (*gradient)(const Strip&);
  void (*gradient_of_value)(const Strip&);  // null where f' cannot be had from f(z)
};

// Kernels by raw neuron type, for one storage type.
using KernelTable = Kernels[kNeuronTypes];

}  // namespace jax_mps_neuron

#endif  // CPU_STRIPS_H
