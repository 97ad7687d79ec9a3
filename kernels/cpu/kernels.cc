// The loops. Compiled once per instruction set and storage type: KERNELS_STORAGE names the latter, and
// NEURON_NAMESPACE, one for each pair, keeps every function of this file to its own copy.

#define NEURON_INLINE static inline __attribute__((always_inline))

#include "storage.h"
#include "../neuron_math.h"
#include "strips.h"

// Iterations do not depend on each other, also where the result takes the gradient's buffer. A loop that is
// not unrolled before the one around it is vectorized keeps that from being vectorized.
#if defined(__clang__)
#define INDEPENDENT_ITERATIONS _Pragma("clang loop vectorize(assume_safety)")
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
#define UNROLLED _Pragma("GCC unroll 8")
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

template <typename Op, bool kBias>
void forward_strip(const Strip& s) {
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

// Rows that a strip with sums works on side by side: each sum is then read and written once for all of
// them, and the arithmetic of one row fills the waits of another. Two were slower on AVX-512.
constexpr int kRowsAtOnce = 4;

// kRows rows of a strip, from row i on.
template <typename Op, bool kBias, bool kSums, int kRows>
NEURON_INLINE void gradient_rows(const Strip& s, int64_t i) {
  const T* scalars = static_cast<const T*>(s.scalars);
  const T alpha = scalars[0];
  const Parameters<T> p{scalars[1], scalars[2], scalars[3]};
  const T* bias = static_cast<const T*>(s.bias);
  const T* slope = static_cast<const T*>(s.slope);
  T* bias_sum = static_cast<T*>(s.bias_sum);
  T* slope_sum = static_cast<T*>(s.slope_sum);
  const int64_t stride = s.stride;
  const Stored* gradient = static_cast<const Stored*>(s.gradient) + i * stride;
  const Stored* x = static_cast<const Stored*>(s.x) + i * stride;
  Stored* data = static_cast<Stored*>(s.result) + i * stride;
  INDEPENDENT_ITERATIONS
  for (int64_t j = 0; j < s.width; ++j) {
    T sum = kSums ? bias_sum[j] : T(0);
    T sum_of_slope = kSums && has_slope<Op> ? slope_sum[j] : T(0);
    UNROLLED
    for (int r = 0; r < kRows; ++r) {
      T z = alpha * Element::load(x[r * stride + j]);
      if (kBias) z += bias[j];
      T g = Element::load(gradient[r * stride + j]);
      T d = Op::derivative(z, at_column<Op>(p, slope, j)) * g;
      data[r * stride + j] = Element::store(alpha * d);
      sum += d;
      if constexpr (has_slope<Op>) sum_of_slope += g * Op::slope_derivative(z);
    }
    if (kSums) bias_sum[j] = sum;
    if (kSums && has_slope<Op>) slope_sum[j] = sum_of_slope;
  }
}

template <typename Op, bool kBias, bool kSums>
void gradient_strip(const Strip& s) {
  int64_t i = 0;
  if (kSums) {
    for (; i + kRowsAtOnce <= s.rows; i += kRowsAtOnce) {
      gradient_rows<Op, kBias, kSums, kRowsAtOnce>(s, i);
    }
  }
  for (; i < s.rows; ++i) gradient_rows<Op, kBias, kSums, 1>(s, i);
}

bool natural(const Strip& s) { return static_cast<const T*>(s.scalars)[3] == T(-1); }

template <typename Op>
void forward_as(const Strip& s) {
  s.bias ? forward_strip<Op, true>(s) : forward_strip<Op, false>(s);
}

template <typename Op>
void forward(const Strip& s) {
  natural(s) ? forward_as<typename Natural<Op>::Type>(s) : forward_as<Op>(s);
}

template <typename Op>
void gradient_as(const Strip& s) {
  if (s.bias_sum) {
    gradient_strip<Op, true, true>(s);
  } else if (s.bias) {
    gradient_strip<Op, true, false>(s);
  } else {
    gradient_strip<Op, false, false>(s);
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
