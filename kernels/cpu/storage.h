// Loads and stores of elements, a vector at a time. float16 and bfloat16 are computed in float and rounded to nearest
// even when stored. Addresses need only the alignment of an element.

#ifndef CPU_STORAGE_H
#define CPU_STORAGE_H

#include "pairs.h"

namespace NEURON_NAMESPACE {

typedef uint16_t RawHalves __attribute__((vector_size(kLanes * 2)));

// Loads kLanes 16-bit integers, and stores integers that fit into 16 bits. Intrinsics, because GCC 12 compiles
// __builtin_convertvector to four instructions where the processor has one.
NEURON_INLINE Ints load_halves(const uint16_t* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<RawInts>(_mm512_cvtepu16_epi32(load_lanes<__m256i>(p)));
#elif defined(__AVX2__)
  return reinterpret_cast<RawInts>(_mm256_cvtepu16_epi32(load_lanes<__m128i>(p)));
#else
  return __builtin_convertvector(load_lanes<RawHalves>(p), RawInts);
#endif
}
NEURON_INLINE void store_halves(uint16_t* p, Ints v) {
#if defined(__AVX512F__)
  store_lanes(p, _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(v.v)));
#elif defined(__AVX2__)
  __m256i packed = _mm256_packus_epi32(reinterpret_cast<__m256i>(v.v), _mm256_setzero_si256());
  store_lanes(p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8)));
#else
  store_lanes(p, __builtin_convertvector(v.v, RawHalves));
#endif
}

struct Float32 {
  using Stored = float;
  using Number = float;
  using Vector = Floats;
  NEURON_INLINE Floats load(const float* p) { return load_lanes<Floats>(p); }
  NEURON_INLINE void store(float* p, Floats v) { store_lanes(p, v); }
};

struct Float64 {
  using Stored = double;
  using Number = double;
  using Vector = double;
  NEURON_INLINE double load(const double* p) { return *p; }
  NEURON_INLINE void store(double* p, double v) { *p = v; }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Number = float;
  using Vector = Floats;
  NEURON_INLINE Floats load(const uint16_t* p) {
    return floats(load_halves(p) << 16);
  }
  NEURON_INLINE void store(uint16_t* p, Floats v) {
    Ints of = bits(v);
    Ints rounded = of + Ints(0x7fff) + ((of >> 16) & Ints(1));
    store_halves(p, logical_shift(select(v == v, rounded, of | Ints(0x400000)), 16));
  }
};

struct Float16 {
  using Stored = uint16_t;
  using Number = float;
  using Vector = Floats;
#if defined(__AVX512F__)
  NEURON_INLINE Floats load(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  NEURON_INLINE void store(uint16_t* p, Floats v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__F16C__)
  NEURON_INLINE Floats load(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  NEURON_INLINE void store(uint16_t* p, Floats v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__aarch64__)
  NEURON_INLINE Floats load(const uint16_t* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
  }
  NEURON_INLINE void store(uint16_t* p, Floats v) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v.v)));
  }
#else
  // Shifts exponent and mantissa into place and rebiases by a multiplication, which turns subnormal halves into normal
  // floats. Infinity and NaN get the full exponent.
  NEURON_INLINE Floats load(const uint16_t* p) {
    Ints wide = load_halves(p);
    Ints magnitude = (wide & Ints(0x7fff)) << 13;
    Ints rebiased = bits(floats(magnitude) * 0x1p112f);
    Ints of = select(magnitude > Ints(0x0f7fffff), magnitude | Ints(0x7f800000), rebiased);
    return floats(of | (wide & Ints(0x8000)) << 16);
  }
  // A normal result rounds in integer arithmetic. A subnormal one (below 2^-14) rounds by adding 1/2, whose last place
  // is the smallest subnormal half.
  NEURON_INLINE void store(uint16_t* p, Floats v) {
    Ints of = bits(v);
    Ints magnitude = of & Ints(~kSign);
    Ints normal = (magnitude - Ints(0x38000000) + Ints(0x0fff) + ((magnitude >> 13) & Ints(1))) >> 13;
    Ints subnormal = bits(floats(magnitude) + 0.5f) - Ints(0x3f000000);
    Ints half = select(magnitude < Ints(0x38800000), subnormal, normal);
    half = select(magnitude > Ints(0x477fefff), Ints(0x7c00), half);  // 65520 and above round to infinity
    half = select(magnitude > Ints(0x7f800000), Ints(0x7e00), half);
    half = half | ((of >> 16) & Ints(0x8000));
    store_halves(p, half);
  }
#endif
};

}  // namespace NEURON_NAMESPACE

#endif  // CPU_STORAGE_H
