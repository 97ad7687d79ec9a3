// Powers on sums of two floats. They are more precise than a float, and twice as fast as doubles on processors with
// fused multiply-adds, which give the rounding error of a product.

#ifndef CPU_PAIRS_H
#define CPU_PAIRS_H

#include "elementary.h"

#if defined(__FMA__) || defined(__aarch64__)
#define CPU_PAIRS

namespace NEURON_NAMESPACE {

struct Pair {
  Floats high, low;  // |low| is at most half a unit in the last place of high
};

NEURON_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a.v, b.v, c.v);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a.v, b.v, c.v);
#else
  return vfmaq_f32(c.v, a.v, b.v);
#endif
}

// a + b + c for |a| >= |b| or a = 0, and a small c.
NEURON_INLINE Pair sum(Floats a, Floats b, Floats c) {
  Floats high = a + b;
  return {high, (a - high) + b + c};
}

NEURON_INLINE Pair product(Floats a, Floats b) {
  Floats high = a * b;
  return {high, fma(a, b, -high)};
}

// log2(2^n m). With s = (m - 1) / (m + 1) it equals n + 2 atanh(s) / log(2). The terms from s^3 on are a polynomial in
// s^2, minimax to 2^-39. The parts in single floats contribute an error of about 2^-31.
NEURON_INLINE Pair log2(Split of) {
  Floats f = of.m - 1.0f;
  Floats d = of.m + 1.0f;
  Floats d_low = of.m - (d - 1.0f);
  Floats inverse = 1.0f / d;
  Floats s = f * inverse;
  Floats s_low = fma(-s, d_low, fma(-s, d, f)) * inverse;
  Floats u = s * s;
  const Floats c = 2.88539f, c_low = 3.851926e-08f;  // 2 / log(2)
  Pair first = product(s, c);
  first.low = fma(s_low, c, fma(s, c_low, first.low));
  Pair of_m = sum(first.high, u * s * polynomial(u, 0.34149384f, 0.41162935f, 0.5770843f, 0.96179664f), first.low);
  return sum(of.n, of_m.high, of_m.low);
}

// y t, for a single float y.
NEURON_INLINE Pair operator*(Floats y, Pair t) {
  Pair high = product(y, t.high);
  return {high.high, fma(y, t.low, high.low)};
}

// k 2^t for 2^-60 <= |k| <= 2^60 and |t| <= 2^20.
NEURON_INLINE Floats scaled_exp2(Pair k, Pair t) {
  Floats clamped = min(254.0f, max(-252.0f, t.high));  // k 2^-252 is 0 and k 2^254 infinity
  Floats shifted = clamped + kRound;
  Floats n = shifted - kRound;
  Pair r = sum(clamped - n, t.low, 0.0f);
  const Floats log2 = 0.6931472f, log2_low = -1.9046542e-09f;
  Pair z = product(r.high, log2);
  z.low = fma(r.low, log2, fma(r.high, log2_low, z.low));
  z.low = fma(z.low, z.high, z.low);
  // e^z - 1 = z + (e^z - 1 - z), as in elementary.h.
  Pair expm1 = sum(z.high, expm1_rest(z.high), z.low);
  Pair e = sum(1.0f, expm1.high, expm1.low);
  return scale(fma(k.high, e.high, fma(k.high, e.low, k.low * e.high)), n, bits(shifted));
}

}  // namespace NEURON_NAMESPACE

#endif  // FMA
#endif  // CPU_PAIRS_H
