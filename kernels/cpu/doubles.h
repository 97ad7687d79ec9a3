// Vectors of kLanes / 2 doubles, for intermediate results that need more precision than float.

#ifndef CPU_DOUBLES_H
#define CPU_DOUBLES_H

#include "vector.h"

namespace NEURON_NAMESPACE {

typedef double RawDoubles __attribute__((vector_size(kLanes * 4)));
typedef int64_t RawLongs __attribute__((vector_size(kLanes * 4)));

struct Doubles {
  RawDoubles v;
  Doubles() = default;
  NEURON_METHOD Doubles(RawDoubles raw) : v(raw) {}
  NEURON_METHOD Doubles(double all) : v(all - RawDoubles{}) {}
};

NEURON_INLINE Doubles operator+(Doubles a, Doubles b) { return a.v + b.v; }
NEURON_INLINE Doubles operator-(Doubles a, Doubles b) { return a.v - b.v; }
NEURON_INLINE Doubles operator*(Doubles a, Doubles b) { return a.v * b.v; }
NEURON_INLINE Doubles clamp(Doubles x, double low, double high) {  // NaN stays NaN
  RawDoubles l = Doubles(low).v, h = Doubles(high).v;
#if defined(__AVX512F__)
  return _mm512_min_pd(h, _mm512_max_pd(l, x.v));
#elif defined(__AVX2__)
  return _mm256_min_pd(h, _mm256_max_pd(l, x.v));
#else
  RawDoubles v = l > x.v ? l : x.v;
  return h < v ? h : v;
#endif
}

// x 2^n for a normal result. `n_bits` holds the bits of n + kRoundDouble.
constexpr double kRoundDouble = 6755399441055744.0;  // 1.5 * 2^52
NEURON_INLINE Doubles scale(Doubles x, Doubles n_bits) {
  RawLongs exponent = reinterpret_cast<RawLongs>(n_bits.v) << 52;
  return reinterpret_cast<RawDoubles>(reinterpret_cast<RawLongs>(x.v) + exponent);
}

// Conversions: lower and upper give half of the lanes each, join puts them together.
NEURON_INLINE Doubles lower(Floats x) {
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(_mm512_castps512_ps256(x.v));
#elif defined(__AVX2__)
  return _mm256_cvtps_pd(_mm256_castps256_ps128(x.v));
#elif defined(__x86_64__)
  return _mm_cvtps_pd(x.v);
#elif defined(__aarch64__)
  return vcvt_f64_f32(vget_low_f32(x.v));
#else
  Doubles result;
  for (int i = 0; i < kLanes / 2; ++i) result.v[i] = x.v[i];
  return result;
#endif
}

NEURON_INLINE Doubles upper(Floats x) {
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1));
#elif defined(__AVX2__)
  return _mm256_cvtps_pd(_mm256_extractf128_ps(x.v, 1));
#elif defined(__x86_64__)
  return _mm_cvtps_pd(_mm_movehl_ps(x.v, x.v));
#elif defined(__aarch64__)
  return vcvt_high_f64_f32(x.v);
#else
  Doubles result;
  for (int i = 0; i < kLanes / 2; ++i) result.v[i] = x.v[kLanes / 2 + i];
  return result;
#endif
}

NEURON_INLINE Floats join(Doubles lower, Doubles upper) {
#if defined(__AVX512F__)
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(lower.v)), _mm512_cvtpd_ps(upper.v), 1);
#elif defined(__AVX2__)
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(lower.v)), _mm256_cvtpd_ps(upper.v), 1);
#elif defined(__x86_64__)
  return _mm_movelh_ps(_mm_cvtpd_ps(lower.v), _mm_cvtpd_ps(upper.v));
#elif defined(__aarch64__)
  return vcvt_high_f32_f64(vcvt_f32_f64(lower.v), upper.v);
#else
  Floats result;
  for (int i = 0; i < kLanes; ++i) result.v[i] = i < kLanes / 2 ? lower.v[i] : upper.v[i - kLanes / 2];
  return result;
#endif
}

}  // namespace NEURON_NAMESPACE

#endif  // CPU_DOUBLES_H
