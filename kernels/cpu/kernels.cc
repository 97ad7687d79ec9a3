// The loops. The build compiles this file once per instruction set and storage type, each time in its own
// NEURON_NAMESPACE. KERNELS_LANES is the vector width in floats, KERNELS_STORAGE the storage type.

#define NEURON_INLINE static inline __attribute__((always_inline))
#define NEURON_METHOD inline __attribute__((always_inline))

#include <type_traits>

#include "storage.h"
#include "../neuron_math.h"
#include "strips.h"

namespace NEURON_NAMESPACE {
namespace {

using jax_mps_neuron::Kernels;
using jax_mps_neuron::KernelTable;
using jax_mps_neuron::Strip;
using Element = KERNELS_STORAGE;
using Stored = Element::Stored;
using Number = Element::Number;
using T = Element::Vector;

constexpr int64_t kWidth = sizeof(T) / sizeof(Number);  // elements in a vector

// Prefetches from the next 4 KiB page, where the CPU's own prefetching stops. This saves a quarter of the time of types
// with long arithmetic. Prefetching past the end is harmless.
NEURON_INLINE void prefetch(const Stored* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + 4096);
}

// For types with a costly f', one loop computes f' of kBlock vectors, and the next loop uses it. A processor executes
// some two hundred instructions at a time: the shorter the work on one vector, the more vectors overlap.
constexpr int kBlock = 16;
template <typename Op>
constexpr bool in_blocks = false;
#define IN_BLOCKS(...) \
  template <>          \
  [[maybe_unused]] constexpr bool in_blocks<__VA_ARGS__> = true;
IN_BLOCKS(Sigmoid)
IN_BLOCKS(Tanh)
IN_BLOCKS(Softplus)
IN_BLOCKS(Elu)
IN_BLOCKS(PowerBy<CoarsePow>)
IN_BLOCKS(NaturalExponential)
IN_BLOCKS(Gelu)

// Power in float32 with f' in pairs of floats. The factor a c is part of the pair, so f' is rounded once.
#if defined(CPU_PAIRS)
constexpr bool kHasPairs = std::is_same_v<Element, Float32>;
#else
constexpr bool kHasPairs = false;
#endif
struct PowerInPairs : Power {
#if defined(CPU_PAIRS)
  template <int kVectors, typename V>
  NEURON_INLINE void derivatives(Parameters<V> p, const V* z, V* results) {
    const V y = exponent(p);
    const Pair factor = product(p.a, p.c);
    Pair exponents[kVectors];
    for (int k = 0; k < kVectors; ++k) exponents[k] = y * log2(split_normal(base(z[k], p)));
    for (int k = 0; k < kVectors; ++k) {
      results[k] = scaled_exp2(factor, exponents[k]);
      const Mask known = regular(base(z[k], p), y);
      if (!all(known)) results[k] = select(known, results[k], derivative(z[k], p));
    }
  }
#endif
};
IN_BLOCKS(PowerInPairs)
#undef IN_BLOCKS

// The scalars of a strip, in every lane.
struct Scalars {
  explicit NEURON_METHOD Scalars(const void* scalars) {
    const Number* s = static_cast<const Number*>(scalars);
    alpha = T(s[0]);
    p = {T(s[1]), T(s[2]), T(s[3])};
  }
  T alpha;
  Parameters<T> p;
};

// Per-column arrays hold whole vectors: see the padding in strips.h.
NEURON_INLINE T at(const void* numbers, int64_t j) {
  return load_lanes<T>(static_cast<const Number*>(numbers) + j);
}
NEURON_INLINE void put(void* numbers, int64_t j, T v) {
  store_lanes(static_cast<Number*>(numbers) + j, v);
}

template <typename Op>
NEURON_INLINE Parameters<T> at_column(Parameters<T> p, const Strip& s, int64_t j) {
  if constexpr (HasSlope<Op>::value) p.a = at(s.slope, j);
  return p;
}

// The argument of f or f': z, or y for a form that reads y.
template <typename Op, bool kBias>
NEURON_INLINE T argument(const Strip& s, Scalars of, const Stored* x, int64_t j) {
  if constexpr (IsOfValue<Op>::value) return Element::load(x);
  T z = of.alpha * Element::load(x);
  if constexpr (kBias) z = z + at(s.bias, j);
  return z;
}

template <typename Op, bool kBias>
NEURON_INLINE void forward_vector(const Strip& s, Scalars of, const Stored* x, Stored* y, int64_t j) {
  T z = argument<Op, kBias>(s, of, x, j);
  Element::store(y, Op::value(z, at_column<Op>(of.p, s, j)));
}

// f' of kVectors vectors.
template <typename Op, int kVectors>
NEURON_INLINE void derivatives(const Strip& s, Scalars of, const T* z, T* results, int64_t j) {
  for (int k = 0; k < kVectors; ++k) {
    results[k] = Op::derivative(z[k], at_column<Op>(of.p, s, j + k * kWidth));
  }
}

template <typename Op, int kVectors>
NEURON_INLINE void prefetch_vectors(const Stored* gradient, const Stored* x) {
  for (int k = 0; k < kVectors; ++k) {
    prefetch(gradient + k * kWidth);
    if constexpr (!HasConstantDerivative<Op>::value) prefetch(x + k * kWidth);
  }
}

template <typename Op, bool kBias, bool kSums, int kVectors>
NEURON_INLINE void gradient_vectors(const Strip& s, Scalars of, const Stored* gradient, const Stored* x,
                                    Stored* data, int64_t j) {
  T z[kVectors], derivative[kVectors];
  for (int k = 0; k < kVectors; ++k) {
    z[k] = argument<Op, kBias>(s, of, x + k * kWidth, j + k * kWidth);
  }
  if constexpr (std::is_same_v<Op, PowerInPairs>) {
    Op::template derivatives<kVectors>(of.p, z, derivative);
  } else {
    derivatives<Op, kVectors>(s, of, z, derivative, j);
  }
  for (int k = 0; k < kVectors; ++k) {
    const int64_t i = k * kWidth, column = j + i;
    T g = Element::load(gradient + i);
    T d = derivative[k] * g;
    Element::store(data + i, of.alpha * d);
    if constexpr (kSums) {
      put(s.bias_sum, column, at(s.bias_sum, column) + d);
      if constexpr (HasSlope<Op>::value) {
        put(s.slope_sum, column, at(s.slope_sum, column) + g * Op::slope_derivative(z[k]));
      }
    }
  }
}

// The last vector of a row: `n` elements, then zeros, which are not copied back.
struct Padded {
  Stored of[kWidth] = {};
  NEURON_METHOD Padded() {}
  NEURON_METHOD Padded(const Stored* p, int64_t n) { std::memcpy(of, p, n * sizeof(Stored)); }
  NEURON_METHOD void copy_to(Stored* p, int64_t n) const { std::memcpy(p, of, n * sizeof(Stored)); }
};

// Restores the sums past the last column. They may belong to other columns of the strip, and f' of the padding may be
// infinite.
class Beyond {
 public:
  NEURON_METHOD Beyond(void* sums, int64_t j) : place_(sums ? static_cast<Number*>(sums) + j : nullptr) {
    if (place_) std::memcpy(kept_, place_, sizeof kept_);
  }
  NEURON_METHOD void restore() const {
    if (place_) std::memcpy(place_, kept_, sizeof kept_);
  }

 private:
  Number* place_;
  Number kept_[kWidth];
};

template <typename Op, bool kBias>
void forward_strip(const Strip s) {
  const Scalars of(s.scalars);
  for (int64_t i = 0; i < s.rows; ++i) {
    const Stored* x = static_cast<const Stored*>(s.x) + i * s.stride;
    Stored* y = static_cast<Stored*>(s.result) + i * s.stride;
    int64_t j = 0;
    for (; j + kWidth <= s.width; j += kWidth) {
      prefetch(x + j);
      forward_vector<Op, kBias>(s, of, x + j, y + j, j);
    }
    if (const int64_t left = s.width - j) {
      const Padded last(x + j, left);
      Padded result;
      forward_vector<Op, kBias>(s, of, last.of, result.of, j);
      result.copy_to(y + j, left);
    }
  }
}

template <typename Op, bool kBias, bool kSums>
void gradient_strip(const Strip s) {
  const Scalars of(s.scalars);
  for (int64_t i = 0; i < s.rows; ++i) {
    const Stored* gradient = static_cast<const Stored*>(s.gradient) + i * s.stride;
    const Stored* x = static_cast<const Stored*>(s.x) + i * s.stride;
    Stored* data = static_cast<Stored*>(s.result) + i * s.stride;
    int64_t j = 0;
    if constexpr (in_blocks<Op>) {
      for (; j + kBlock * kWidth <= s.width; j += kBlock * kWidth) {
        prefetch_vectors<Op, kBlock>(gradient + j, x + j);
        gradient_vectors<Op, kBias, kSums, kBlock>(s, of, gradient + j, x + j, data + j, j);
      }
    }
    for (; j + kWidth <= s.width; j += kWidth) {
      prefetch_vectors<Op, 1>(gradient + j, x + j);
      gradient_vectors<Op, kBias, kSums, 1>(s, of, gradient + j, x + j, data + j, j);
    }
    if (const int64_t left = s.width - j) {
      const Padded last_gradient(gradient + j, left), last(x + j, left);
      Padded result;
      const Beyond bias_sum(s.bias_sum, j + left), slope_sum(s.slope_sum, j + left);
      gradient_vectors<Op, kBias, kSums, 1>(s, of, last_gradient.of, last.of, result.of, j);
      result.copy_to(data + j, left);
      bias_sum.restore(), slope_sum.restore();
    }
  }
}

// Whether c stands for e.
template <typename Op>
bool natural(const Strip& s) {
  return Natural<Op>::exists && static_cast<const Number*>(s.scalars)[3] == Number(-1);
}

template <typename Op>
void forward_as(const Strip& s) {
  s.bias ? forward_strip<Op, true>(s) : forward_strip<Op, false>(s);
}

// The form of a type for these elements.
template <typename Op>
using InElements = std::conditional_t<sizeof(Stored) == 2, typename Coarse<Op>::Type, Op>;

// If c is `base` plus 0, 1, 2 or 3, calls `as` with the form of Power for that exponent and returns true.
template <typename As>
bool small_power(const Strip& s, int base, As as) {
  const Number exponent = static_cast<const Number*>(s.scalars)[3] - Number(base);
  if (exponent == Number(0)) return as(PowerBy<SmallPow<0>>()), true;
  if (exponent == Number(1)) return as(PowerBy<SmallPow<1>>()), true;
  if (exponent == Number(2)) return as(PowerBy<SmallPow<2>>()), true;
  if (exponent == Number(3)) return as(PowerBy<SmallPow<3>>()), true;
  return false;
}

struct ValueOf {
  template <typename Op>
  static T at(T z, Parameters<T> p) { return Op::value(z, p); }
};
struct DerivativeOf {
  template <typename Op>
  static T at(T z, Parameters<T> p) { return Op::derivative(z, p); }
};

// If f is constant, calls `as` with the scalars of a Constant for Function and returns true.
template <typename Op, typename Function>
bool constant(const Strip& s, void (*as)(const Strip&)) {
  if constexpr (!IsOfValue<Op>::value) {
    const Number* given = static_cast<const Number*>(s.scalars);
    if (!is_constant<Op>(given[1], given[2])) return false;
    auto at = [&](Number z) {
      const Parameters<T> p = Scalars(given).p;
      Number lanes[kWidth];
      put(lanes, 0, natural<Op>(s) ? Function::template at<typename Natural<Op>::Type>(T(z), p)
                                   : Function::template at<InElements<Op>>(T(z), p));
      return lanes[0];
    };
    const Number scalars[] = {given[0], at(0), at(NAN), 0};
    Strip of_constant = s;
    of_constant.scalars = scalars;
    as(of_constant);
    return true;
  }
  return false;
}

template <typename Op>
void forward(const Strip& s) {
  if (constant<Op, ValueOf>(s, &forward_as<Constant>)) return;
  if constexpr (std::is_same_v<Op, Power>) {
    if (small_power(s, 0, [&](auto op) { forward_as<decltype(op)>(s); })) return;
  }
  natural<Op>(s) ? forward_as<typename Natural<Op>::Type>(s) : forward_as<InElements<Op>>(s);
}

// Whether the data gradient is the gradient itself, in the same memory.
template <typename Op>
NEURON_INLINE bool is_identity(const Strip& s) {
  const bool same = s.result == s.gradient && static_cast<const Number*>(s.scalars)[0] == Number(1);
  return std::is_same_v<Op, None> && same;
}

// Computes the bias gradient in that case.
void sum_strip(const Strip s) {
  for (int64_t i = 0; i < s.rows; ++i) {
    const Stored* gradient = static_cast<const Stored*>(s.gradient) + i * s.stride;
    int64_t j = 0;
    for (; j + kWidth <= s.width; j += kWidth) {
      prefetch(gradient + j);
      put(s.bias_sum, j, at(s.bias_sum, j) + Element::load(gradient + j));
    }
    if (const int64_t left = s.width - j) {
      put(s.bias_sum, j, at(s.bias_sum, j) + Element::load(Padded(gradient + j, left).of));
    }
  }
}

template <typename Op>
void gradient_as(const Strip& s) {
  if (is_identity<Op>(s)) {
    if (s.bias_sum) sum_strip(s);
    return;
  }
  if (s.bias_sum) {
    gradient_strip<Op, true, true>(s);
  } else if (s.bias && !IsOfValue<Op>::value) {
    gradient_strip<Op, true, false>(s);
  } else {
    gradient_strip<Op, false, false>(s);
  }
}

// Whether PowerInPairs is exact enough: the error of log2 does not show in these exponents, and these factors scale
// nothing out of range.
[[maybe_unused]] bool pairs_suffice(const Strip& s) {
  const Number* p = static_cast<const Number*>(s.scalars) + 1;
  const Number factor = std::fabs(p[0] * p[2]);
  return std::fabs(p[2] - 1) <= 16 && factor >= Number(0x1p-60) && factor <= Number(0x1p60);
}

template <typename Op>
void gradient(const Strip& s) {
  if (constant<Op, DerivativeOf>(s, &gradient_as<Constant>)) return;
  if constexpr (std::is_same_v<Op, Power>) {
    if (small_power(s, 1, [&](auto op) { gradient_as<decltype(op)>(s); })) return;
    if constexpr (kHasPairs) {
      if (pairs_suffice(s)) return gradient_as<PowerInPairs>(s);
    }
  }
  natural<Op>(s) ? gradient_as<typename Natural<Op>::Type>(s) : gradient_as<InElements<Op>>(s);
}

// Null if f(z) does not determine f'.
using Entry = void (*)(const Strip&);
template <typename Op>
constexpr Entry gradient_of_value() {
  if constexpr (OfValue<Op>::exists) return &gradient<typename OfValue<Op>::Type>;
  return nullptr;
}

}  // namespace

#define ENTRY(raw, Op) {&forward<Op>, &gradient<Op>, gradient_of_value<Op>()},
extern const KernelTable table = {NEURON_TYPES(ENTRY)};

}  // namespace NEURON_NAMESPACE
