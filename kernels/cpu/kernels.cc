// The loops. Compiled once per instruction set and storage type: KERNELS_LANES is the former's vector width
// in floats, KERNELS_STORAGE names the latter, and NEURON_NAMESPACE, one for each pair, keeps every function of
// this file to its own copy.

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

// Reads ahead into the next 4 KiB page, where a CPU's own prefetching ends: a quarter less time for the types whose
// arithmetic would otherwise wait. Addresses past the end do no harm.
NEURON_INLINE void prefetch(const Stored* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + 4096);
}

// Only PReLU has a slope for each column.
template <typename Op>
constexpr bool has_slope = false;
template <>
constexpr bool has_slope<Prelu> = true;

// Whether f' is a function of f(z), which is read in x's place.
template <typename Op>
constexpr bool of_value = false;
#define OF_VALUE(raw, Op) \
  template <>             \
  constexpr bool of_value<Op> = true;
NEURON_TYPES_OF_VALUE(OF_VALUE)
OF_VALUE(13, NaturalExponentialOfValue)
#undef OF_VALUE

// Vectors that f' is computed of before it meets the gradient, of the types for which it takes long. A processor has
// some two hundred instructions under way: the fewer and the sooner done those of one vector are, the more vectors
// are worked on at a time.
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

// Power in float32 with an f' in pairs of floats, the factor a c within, so that it is rounded once.
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

// What is the same for a whole matrix, in every lane.
struct Scalars {
  explicit NEURON_METHOD Scalars(const void* scalars) {
    const Number* s = static_cast<const Number*>(scalars);
    alpha = T(s[0]);
    p = {T(s[1]), T(s[2]), T(s[3])};
  }
  T alpha;
  Parameters<T> p;
};

// Per-column numbers are padded to whole vectors (strips.h).
NEURON_INLINE T at(const void* numbers, int64_t j) {
  return load_lanes<T>(static_cast<const Number*>(numbers) + j);
}
NEURON_INLINE void put(void* numbers, int64_t j, T v) {
  store_lanes(static_cast<Number*>(numbers) + j, v);
}

// Whether f' does not depend on z.
template <typename Op>
constexpr bool constant_slope = std::is_same_v<Op, None> || std::is_same_v<Op, Linear>;

template <typename Op>
NEURON_INLINE Parameters<T> at_column(Parameters<T> p, const Strip& s, int64_t j) {
  if constexpr (has_slope<Op>) p.a = at(s.slope, j);
  return p;
}

// What f or f' is computed of.
template <typename Op, bool kBias>
NEURON_INLINE T argument(const Strip& s, Scalars of, const Stored* x, int64_t j) {
  if constexpr (of_value<Op>) return Element::load(x);
  T z = of.alpha * Element::load(x);
  if constexpr (kBias) z = z + at(s.bias, j);
  return z;
}

template <typename Op, bool kBias>
NEURON_INLINE void forward_vector(const Strip& s, Scalars of, const Stored* x, Stored* y, int64_t j) {
  T z = argument<Op, kBias>(s, of, x, j);
  Element::store(y, Op::value(z, at_column<Op>(of.p, s, j)));
}

// f' of as many vectors.
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
    if constexpr (!constant_slope<Op>) prefetch(x + k * kWidth);
  }
}

template <typename Op, bool kBias, bool kSums, int kVectors>
NEURON_INLINE void gradient_vectors(const Strip& s, Scalars of, const Stored* gradient, const Stored* x,
                                    Stored* data, int64_t j) {
  T z[kVectors], slope[kVectors];
  for (int k = 0; k < kVectors; ++k) {
    z[k] = argument<Op, kBias>(s, of, x + k * kWidth, j + k * kWidth);
  }
  if constexpr (std::is_same_v<Op, PowerInPairs>) {
    Op::template derivatives<kVectors>(of.p, z, slope);
  } else {
    derivatives<Op, kVectors>(s, of, z, slope, j);
  }
  for (int k = 0; k < kVectors; ++k) {
    const int64_t i = k * kWidth, column = j + i;
    T g = Element::load(gradient + i);
    T d = slope[k] * g;
    Element::store(data + i, of.alpha * d);
    if constexpr (kSums) {
      put(s.bias_sum, column, at(s.bias_sum, column) + d);
      if constexpr (has_slope<Op>) {
        put(s.slope_sum, column, at(s.slope_sum, column) + g * Op::slope_derivative(z[k]));
      }
    }
  }
}

// A vector of which the first `n` elements are there, and the others are 0 and go nowhere.
struct Padded {
  Stored of[kWidth] = {};
  NEURON_METHOD Padded() {}
  NEURON_METHOD Padded(const Stored* p, int64_t n) { std::memcpy(of, p, n * sizeof(Stored)); }
  NEURON_METHOD void copy_to(Stored* p, int64_t n) const { std::memcpy(p, of, n * sizeof(Stored)); }
};

// The sums past the last column, which are other columns' where a strip ends in part of a row: f' of nothing may be
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

// Whether the type has another form where its c stands for e, and c does.
template <typename Op>
bool natural(const Strip& s) {
  constexpr bool has_one = !std::is_same_v<typename Natural<Op>::Type, Op>;
  return has_one && static_cast<const Number*>(s.scalars)[3] == Number(-1);
}

template <typename Op>
void forward_as(const Strip& s) {
  s.bias ? forward_strip<Op, true>(s) : forward_strip<Op, false>(s);
}

// What computes a type, given its parameters and the elements' type.
template <typename Op>
using InElements = std::conditional_t<sizeof(Stored) == 2, typename Coarse<Op>::Type, Op>;

// Calls `as` with the form of Power for an exponent that is `base` plus a small integer, if it is.
template <typename As>
bool small_power(const Strip& s, int base, As as) {
  const Number exponent = static_cast<const Number*>(s.scalars)[3] - Number(base);
  if (exponent == Number(0)) return as(PowerBy<SmallPow<0>>()), true;
  if (exponent == Number(1)) return as(PowerBy<SmallPow<1>>()), true;
  if (exponent == Number(2)) return as(PowerBy<SmallPow<2>>()), true;
  if (exponent == Number(3)) return as(PowerBy<SmallPow<3>>()), true;
  return false;
}

template <typename Op>
void forward(const Strip& s) {
  if constexpr (std::is_same_v<Op, Power>) {
    if (small_power(s, 0, [&](auto op) { forward_as<decltype(op)>(s); })) return;
  }
  natural<Op>(s) ? forward_as<typename Natural<Op>::Type>(s) : forward_as<InElements<Op>>(s);
}

// The data gradient is the gradient and already in its place.
template <typename Op>
NEURON_INLINE bool in_place(const Strip& s) {
  const bool same = s.result == s.gradient && static_cast<const Number*>(s.scalars)[0] == Number(1);
  return std::is_same_v<Op, None> && same;
}

// What is left to do then.
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
  if (in_place<Op>(s)) {
    if (s.bias_sum) sum_strip(s);
    return;
  }
  if (s.bias_sum) {
    gradient_strip<Op, true, true>(s);
  } else if (s.bias && !of_value<Op>) {
    gradient_strip<Op, true, false>(s);
  } else {
    gradient_strip<Op, false, false>(s);
  }
}

// Whether pairs of floats do: for exponents for which log2's error does not show, and factors that nothing is scaled
// out of range with.
[[maybe_unused]] bool pairs_do(const Strip& s) {
  const Number* p = static_cast<const Number*>(s.scalars) + 1;
  const Number factor = std::fabs(p[0] * p[2]);
  return std::fabs(p[2] - 1) <= 16 && factor >= Number(0x1p-60) && factor <= Number(0x1p60);
}

template <typename Op>
void gradient(const Strip& s) {
  if constexpr (std::is_same_v<Op, Power>) {
    if (small_power(s, 1, [&](auto op) { gradient_as<decltype(op)>(s); })) return;
    if constexpr (kHasPairs) {
      if (pairs_do(s)) return gradient_as<PowerInPairs>(s);
    }
  }
  natural<Op>(s) ? gradient_as<typename Natural<Op>::Type>(s) : gradient_as<InElements<Op>>(s);
}

// By raw value, null where there is none.
using Entry = void (*)(const Strip&);
constexpr Entry of_values(int type) {
#define IF_TYPE(raw, Op) \
  if (type == raw) return &gradient<Op>;
  NEURON_TYPES_OF_VALUE(IF_TYPE)
#undef IF_TYPE
  return nullptr;
}

}  // namespace

#define ENTRY(raw, Op) {&forward<Op>, &gradient<Op>, of_values(raw)},
extern const KernelTable table = {NEURON_TYPES(ENTRY)};

}  // namespace NEURON_NAMESPACE
