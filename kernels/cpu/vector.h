// Vectors of kLanes floats or 32-bit integers, and masks, on the vector extensions that GCC and Clang share.
// KERNELS_LANES and the compiler's flags make the same code AVX-512, AVX2, SSE2 or NEON.
//
// Each instruction set includes this file in its own namespace. The linker can then never replace a portable copy of a
// function with one compiled for a newer CPU.

#ifndef CPU_VECTOR_H
#define CPU_VECTOR_H

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace NEURON_NAMESPACE {

constexpr int kLanes = KERNELS_LANES;

typedef float RawFloats __attribute__((vector_size(kLanes * 4)));
typedef int32_t RawInts __attribute__((vector_size(kLanes * 4)));
typedef uint32_t RawUnsigned __attribute__((vector_size(kLanes * 4)));

struct Ints {
  RawInts v;
  Ints() = default;
  NEURON_METHOD Ints(RawInts raw) : v(raw) {}
  NEURON_METHOD Ints(int32_t all) : v(all - RawInts{}) {}
};

struct Floats {
  RawFloats v;
  Floats() = default;
  NEURON_METHOD Floats(RawFloats raw) : v(raw) {}
  NEURON_METHOD Floats(float all) : v(all - RawFloats{}) {}  // -0 - 0 is -0
};

// Each lane all ones or all zeros.
struct Mask {
  RawInts v;
};

NEURON_INLINE Floats operator+(Floats a, Floats b) { return a.v + b.v; }
NEURON_INLINE Floats operator-(Floats a, Floats b) { return a.v - b.v; }
NEURON_INLINE Floats operator*(Floats a, Floats b) { return a.v * b.v; }
NEURON_INLINE Floats operator/(Floats a, Floats b) { return a.v / b.v; }
NEURON_INLINE Floats operator-(Floats a) { return -a.v; }
NEURON_INLINE Floats& operator+=(Floats& a, Floats b) { return a = a + b; }

NEURON_INLINE RawUnsigned unsigned_of(Ints a) { return reinterpret_cast<RawUnsigned>(a.v); }
NEURON_INLINE Ints signed_of(RawUnsigned a) { return reinterpret_cast<RawInts>(a); }

// Sums, differences and left shifts wrap around: they are unsigned, because signed overflow is undefined.
NEURON_INLINE Ints operator+(Ints a, Ints b) { return signed_of(unsigned_of(a) + unsigned_of(b)); }
NEURON_INLINE Ints operator-(Ints a, Ints b) { return signed_of(unsigned_of(a) - unsigned_of(b)); }
NEURON_INLINE Ints operator&(Ints a, Ints b) { return a.v & b.v; }
NEURON_INLINE Ints operator|(Ints a, Ints b) { return a.v | b.v; }
NEURON_INLINE Ints operator<<(Ints a, int by) { return signed_of(unsigned_of(a) << by); }
NEURON_INLINE Ints operator>>(Ints a, int by) { return a.v >> by; }  // keeps the sign
NEURON_INLINE Ints logical_shift(Ints a, int by) { return signed_of(unsigned_of(a) >> by); }  // shifts in zeros

NEURON_INLINE Mask operator<(Floats a, Floats b) { return {a.v < b.v}; }
NEURON_INLINE Mask operator>(Floats a, Floats b) { return {a.v > b.v}; }
NEURON_INLINE Mask operator<=(Floats a, Floats b) { return {a.v <= b.v}; }
NEURON_INLINE Mask operator>=(Floats a, Floats b) { return {a.v >= b.v}; }
NEURON_INLINE Mask operator==(Floats a, Floats b) { return {a.v == b.v}; }
NEURON_INLINE Mask operator!=(Floats a, Floats b) { return {a.v != b.v}; }
NEURON_INLINE Mask operator<(Ints a, Ints b) { return {a.v < b.v}; }
NEURON_INLINE Mask operator>(Ints a, Ints b) { return {a.v > b.v}; }
NEURON_INLINE Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
NEURON_INLINE Mask operator|(Mask a, Mask b) { return {a.v | b.v}; }

// Whether a mask is set in every lane.
NEURON_INLINE bool all(Mask m) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(m.v)) == 0xffff;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(m.v)) == 0xff;
#elif defined(__x86_64__)
  return _mm_movemask_ps(reinterpret_cast<__m128>(m.v)) == 0xf;
#elif defined(__aarch64__)
  return vminvq_u32(reinterpret_cast<uint32x4_t>(m.v)) != 0;
#else
  for (int i = 0; i < kLanes; ++i) {
    if (!m.v[i]) return false;
  }
  return true;
#endif
}

NEURON_INLINE Floats select(Mask m, Floats a, Floats b) { return m.v ? a.v : b.v; }
NEURON_INLINE Ints select(Mask m, Ints a, Ints b) { return m.v ? a.v : b.v; }

NEURON_INLINE Ints bits(Floats x) { return reinterpret_cast<RawInts>(x.v); }
NEURON_INLINE Floats floats(Ints x) { return reinterpret_cast<RawFloats>(x.v); }
NEURON_INLINE Floats to_floats(Ints x) { return __builtin_convertvector(x.v, RawFloats); }

// Loads and stores at any address.
template <typename Vector, typename Lane>
NEURON_INLINE Vector load_lanes(const Lane* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename Vector, typename Lane>
NEURON_INLINE void store_lanes(Lane* p, Vector v) {
  std::memcpy(p, &v, sizeof v);
}

// The larger and the smaller of a and b. A NaN in b is the result; a must not be NaN.
NEURON_INLINE Floats max(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a.v, b.v);
#elif defined(__AVX2__)
  return _mm256_max_ps(a.v, b.v);
#else
  return select(a > b, a, b);
#endif
}
NEURON_INLINE Floats min(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a.v, b.v);
#elif defined(__AVX2__)
  return _mm256_min_ps(a.v, b.v);
#else
  return select(a < b, a, b);
#endif
}

// neuron_math.h's bounds in one instruction.
NEURON_INLINE Floats at_least(Floats x, Floats bound) { return max(bound, x); }
NEURON_INLINE Floats at_most(Floats x, Floats bound) { return min(bound, x); }

constexpr int32_t kSign = INT32_MIN;

NEURON_INLINE Floats fabs(Floats x) { return floats(bits(x) & Ints(~kSign)); }
NEURON_INLINE Floats with_sign(Floats magnitude, Floats sign) {
  return floats((bits(magnitude) & Ints(~kSign)) | (bits(sign) & Ints(kSign)));
}

}  // namespace NEURON_NAMESPACE

#endif  // CPU_VECTOR_H
