// The loops. Compiled once per instruction set and storage type: KERNELS_STORAGE names the latter, and
// NEURON_NAMESPACE, one for each pair, keeps every function of this file to its own copy.

#define NEURON_INLINE static inline __attribute__((always_inline))

#include "storage.h"
#include "../neuron_math.h"
#include "strips.h"

// Iterations do not depend on each other, also where the result takes the gradient's buffer.
#if defined(__clang__)
#define INDEPENDENT_ITERATIONS _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
#endif

namespace NEURON_NAMESPACE {
namespace {

using jax_mps_neuron::Kernels;
using jax_mps_neuron::KernelTable;
using jax_mps_neuron::Strip;
using Element = KERNELS_STORAGE;
using Stored = Element::Stored;
using T = Element::Compute;

// Only PReLU has a slope for each column.
template <typename Op>
constexpr bool has_slope = false;
template <>
constexpr bool has_slope<Prelu> = true;

template <typename Op>
NEURON_INLINE Parameters<T> at_column(Parameters<T> p, const T* slope, int64_t j) {
  if constexpr (has_slope<Op>) p.a = slope[j];
  return p;
}

template <typename Op>
NEURON_INLINE void add_slope_derivative(T* sum, int64_t j, T gradient, T z) {
  if constexpr (has_slope<Op>) sum[j] += gradient * Op::slope_derivative(z);
}

template <typename Op, bool kBias>
void forward_rows(const Strip& s) {
  const T* scalars = static_cast<const T*>(s.scalars);
  const T alpha = scalars[0];
  const Parameters<T> p{scalars[1], scalars[2], scalars[3]};
  const T* bias = static_cast<const T*>(s.bias);
  const T* slope = static_cast<const T*>(s.slope);
  for (int64_t i = 0; i < s.rows; ++i) {
    const Stored* x = static_cast<const Stored*>(s.x) + i * s.stride;
    Stored* y = static_cast<Stored*>(s.result) + i * s.stride;
    INDEPENDENT_ITERATIONS
    for (int64_t j = 0; j < s.width; ++j) {
      T z = alpha * Element::load(x[j]);
      if (kBias) z += bias[j];
      y[j] = Element::store(Op::value(z, at_column<Op>(p, slope, j)));
    }
  }
}

template <typename Op, bool kBias, bool kSums>
void gradient_rows(const Strip& s) {
  const T* scalars = static_cast<const T*>(s.scalars);
  const T alpha = scalars[0];
  const Parameters<T> p{scalars[1], scalars[2], scalars[3]};
  const T* bias = static_cast<const T*>(s.bias);
  const T* slope = static_cast<const T*>(s.slope);
  T* bias_sum = static_cast<T*>(s.bias_sum);
  T* slope_sum = static_cast<T*>(s.slope_sum);
  for (int64_t i = 0; i < s.rows; ++i) {
    const Stored* gradient = static_cast<const Stored*>(s.gradient) + i * s.stride;
    const Stored* x = static_cast<const Stored*>(s.x) + i * s.stride;
    Stored* data = static_cast<Stored*>(s.result) + i * s.stride;
    INDEPENDENT_ITERATIONS
    for (int64_t j = 0; j < s.width; ++j) {
      T z = alpha * Element::load(x[j]);
      if (kBias) z += bias[j];
      T g = Element::load(gradient[j]);
      T d = Op::derivative(z, at_column<Op>(p, slope, j)) * g;
      data[j] = Element::store(alpha * d);
      if (kSums) {
        bias_sum[j] += d;
        add_slope_derivative<Op>(slope_sum, j, g, z);
      }
    }
  }
}

bool natural(const Strip& s) { return static_cast<const T*>(s.scalars)[3] == T(-1); }

template <typename Op>
void forward_as(const Strip& s) {
  s.bias ? forward_rows<Op, true>(s) : forward_rows<Op, false>(s);
}

template <typename Op>
void forward(const Strip& s) {
  natural(s) ? forward_as<typename Natural<Op>::Type>(s) : forward_as<Op>(s);
}

template <typename Op>
void gradient_as(const Strip& s) {
  if (s.bias_sum) {
    gradient_rows<Op, true, true>(s);
  } else if (s.bias) {
    gradient_rows<Op, true, false>(s);
  } else {
    gradient_rows<Op, false, false>(s);
  }
}

template <typename Op>
void gradient(const Strip& s) {
  natural(s) ? gradient_as<typename Natural<Op>::Type>(s) : gradient_as<Op>(s);
}

}  // namespace

#define ENTRY(raw, Op) {&forward<Op>, &gradient<Op>},
extern const KernelTable table = {NEURON_TYPES(ENTRY)};

}  // namespace NEURON_NAMESPACE
