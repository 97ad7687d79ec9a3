// Elementary functions for the CPU kernels: on vectors of floats, and the C library's for double. They return IEEE
// special values and keep subnormal numbers. Only powers branch: they skip special cases that no lane needs.

#ifndef CPU_ELEMENTARY_H
#define CPU_ELEMENTARY_H

#include <cmath>

#include "doubles.h"

namespace NEURON_NAMESPACE {

// Adding it rounds |x| < 2^22 to an integer in the low mantissa bits.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
constexpr float kInfinity = __builtin_inff();
constexpr float kSmallestNormal = 0x1p-126f;

// The polynomial with these coefficients, highest power first.
template <typename V, typename First, typename... Rest>
NEURON_INLINE V polynomial(V x, First first, Rest... rest) {
  V p(first);
  ((p = p * x + V(rest)), ...);
  return p;
}

// x 2^n for an integral n in [-252, 254]. `n_bits` holds the bits of n + kRound.
NEURON_INLINE Floats scale(Floats x, Floats n, Ints n_bits) {
#if defined(__AVX512F__)
  (void)n_bits;
  return _mm512_scalef_ps(x.v, n.v);
#else
  (void)n;
  // Two factors, because 2^n may be out of range where the result is not.
  Ints i = n_bits - Ints(0x4b400000);
  Ints half = i >> 1;
  return x * floats((half + Ints(127)) << 23) * floats((i - half + Ints(127)) << 23);
#endif
}

struct Reduced {
  Floats r;     // x - n log(2), |r| <= log(2) / 2
  Floats rest;  // expm1(r) - r
  Floats low;   // the rounding error of r
  Floats n;
  Ints n_bits;
};

// expm1(r) - r for |r| <= log(2) / 2, minimax 3e-9.
NEURON_INLINE Floats expm1_rest(Floats r) {
  Floats p = polynomial(r, 1.98577982e-4f, 1.39336067e-3f, 8.33336078e-3f, 4.16664667e-2f, 0.166666672f, 0.5f);
  return p * (r * r);
}

// Cody and Waite's reduction, for |x| <= 104.
NEURON_INLINE Reduced reduce(Floats x) {
  Floats shifted = x * 1.44269504f + kRound;
  Floats n = shifted - kRound;
  Floats first = x - n * 0.693359375f;  // log(2) in two parts, the first exact in 10 bits
  Floats r = first + n * 2.12194440e-4f;
  return {r, expm1_rest(r), first - r + n * 2.12194440e-4f, n, bits(shifted)};
}

// e^x for x <= 89. Below -104 it underflows to 0, so x is bounded there.
NEURON_INLINE Floats exp_negative(Floats x) {
  Reduced e = reduce(max(-104.0f, x));
  return scale(e.r + e.rest + 1.0f, e.n, e.n_bits);
}

NEURON_INLINE Floats exp(Floats x) { return exp_negative(min(89.0f, x)); }

// 2^n (expm1(r) + 1) - 1 for x <= 88. Terms are added from the largest down: nothing cancels near 0, and only the last
// sum has a large rounding error.
NEURON_INLINE Floats expm1(Floats x) {
  Reduced e = reduce(max(-87.0f, x));
  Floats power = floats((e.n_bits - Ints(0x4b400000 - 127)) << 23);
  Floats whole = power - 1.0f;
  Floats sum = power * e.r + whole;
  Floats sum_low = power * e.r - (sum - whole);
  return sum + (power * (e.rest + e.low) + sum_low);
}

NEURON_INLINE Floats tanh(Floats x) {
  Floats e = expm1(-2.0f * fabs(x));
  return with_sign(e / (2.0f + e), x);
}

// |x| = 2^n m with m in [sqrt(1/2), sqrt(2)). Meaningless for 0, infinity and NaN.
struct Split {
  Floats n, m;
};
NEURON_INLINE Split split_normal(Floats magnitude) {
  Ints of = bits(magnitude);
  Ints n = (of - Ints(0x3f3504f3)) >> 23;
  return {to_floats(n), floats(of - (n << 23))};
}
NEURON_INLINE Split split(Floats magnitude) {
  Mask subnormal = magnitude < kSmallestNormal;
  Split of = split_normal(select(subnormal, magnitude * 8388608.0f, magnitude));
  return {of.n - select(subnormal, Floats(23.0f), Floats(0.0f)), of.m};
}

// log(m) = f - f^2/2 + f^3 p(f) with f = m - 1; p is minimax to 7e-8 of the last term.
NEURON_INLINE Floats log(Split of) {
  Floats f = of.m - 1.0f;
  Floats p = polynomial(f, 7.03854337e-2f, -0.115160659f, 0.116773613f, -0.12419977f, 0.142492726f,
                        -0.166680619f, 0.200007156f, -0.24999994f, 0.333333313f);
  Floats y = f * (f * f) * p;
  y = y - of.n * 2.12194440e-4f;
  y = y - 0.5f * (f * f);
  y = y + f;
  return y + of.n * 0.693359375f;
}

NEURON_INLINE Floats log(Floats x) {
  Floats y = log(split(x));
  y = select(x < kInfinity, y, x);  // infinity and NaN
  y = select(x == 0.0f, Floats(-kInfinity), y);
  return select(x < 0.0f, Floats(__builtin_nanf("")), y);
}

// m^y 2^(n y) in double, where the rounding of the exponent does not show. One polynomial in f = m - 1 gives
// log2(1 + f) / f, minimax to 2e-11; another gives 2^r, to 4e-11. Odd and even powers are separate, which halves the
// chain of dependent multiplications. 2^1000 and 2^-1000 become infinity and 0 in float.
NEURON_INLINE Doubles regular_pow(Doubles m, Doubles n, Doubles y) {
  Doubles f = m - 1.0;
  Doubles ff = f * f;
  Doubles odd = polynomial(ff, -0.14283945261837594, -0.1431564285255088, -0.18030060429070066,
                           -0.24045316247246587, -0.3606736748298737, -0.7213475208687492);
  Doubles even = polynomial(ff, 0.07737054922382612, 0.1447484249460058, 0.1587698002971004,
                            0.20617535978485707, 0.2885372934564052, 0.48089836139568287,
                            1.4426950408687051);
  Doubles t = clamp(((odd * f + even) * f + n) * y, -1000.0, 1000.0);
  Doubles shifted = t + kRoundDouble;
  Doubles r = t - (shifted - kRoundDouble);
  Doubles rr = r * r;
  Doubles high = polynomial(rr, 1.5201919659164204e-05, 0.00133339225721777, 0.05550410353437394,
                            0.6931471807284502);
  Doubles low = polynomial(rr, 0.0001546929114365327, 0.009618027253686372, 0.24022651198157075,
                           0.9999999999616821);
  return scale(high * r + low, shifted);
}

NEURON_INLINE Floats floor(Floats x) {
  Floats t = to_floats(Ints(__builtin_convertvector(x.v, RawInts)));
  t = select(t > x, t - 1.0f, t);
  return select(fabs(x) < 8388608.0f, t, x);  // from 2^23 on a float has no fraction
}

// x^y from |x|^y: an odd power takes the sign of x, a non-integer power of x < 0 is NaN, and x^0, 1^y and (-1)^infinity
// are 1, even with a NaN.
NEURON_INLINE Floats signed_power(Floats power, Floats x, Floats y) {
  Floats half = 0.5f * y;
  Mask odd = (floor(y) == y) & (floor(half) != half);
  Floats result = select(odd, with_sign(power, x), power);
  Mask undefined = (x < 0.0f) & (x > -kInfinity) & (floor(y) < y);
  result = select(undefined, Floats(__builtin_nanf("")), result);
  Mask one = (y == 0.0f) | (x == 1.0f) | ((x == -1.0f) & (fabs(y) == kInfinity));
  return select(one, Floats(1.0f), result);
}

// Where x^y is regular: x is positive and normal, y finite.
NEURON_INLINE Mask regular(Floats x, Floats y) {
  return (x >= kSmallestNormal) & (x < kInfinity) & (fabs(y) < kInfinity);
}

NEURON_INLINE Floats regular_pow(Split of, Floats y) {
  return join(regular_pow(lower(of.m), lower(of.n), lower(y)), regular_pow(upper(of.m), upper(of.n), upper(y)));
}

NEURON_INLINE Floats pow(Floats x, Floats y) {
  if (all(regular(x, y))) return regular_pow(split_normal(x), y);
  Floats magnitude = fabs(x);
  // 0, infinity and NaN to a positive power are themselves. A negative power swaps 0 and infinity.
  Ints b = bits(magnitude);
  Mask nonzero = (b > Ints(0)) & (b < Ints(0x7f800000));
  Floats special = floats(select(y < 0.0f, Ints(0x7f800000) - b, b));
  special = select(y == y, special, y);
  return signed_power(select(nonzero, regular_pow(split(magnitude), y), special), x, y);
}

// x^y to 2^-16, which a half or a bfloat cannot tell from exact.
NEURON_INLINE Floats coarse_pow(Floats x, Floats y) {
  if (all(regular(x, y))) return exp(y * log(split_normal(x)));
  return signed_power(exp(y * log(fabs(x))), x, y);
}

NEURON_INLINE double fabs(double x) { return __builtin_fabs(x); }
NEURON_INLINE double exp(double x) { return std::exp(x); }
NEURON_INLINE double exp_negative(double x) { return std::exp(x); }
NEURON_INLINE double expm1(double x) { return std::expm1(x); }
NEURON_INLINE double tanh(double x) { return std::tanh(x); }
NEURON_INLINE double log(double x) { return std::log(x); }
NEURON_INLINE double pow(double x, double y) { return std::pow(x, y); }
NEURON_INLINE double log1p_unit(double x) { return std::log1p(x); }
NEURON_INLINE double normal_tail(double r, double) { return 0.5 * std::erfc(r * 0.7071067811865476); }
NEURON_INLINE double normal_bound(double) { return 40; }
NEURON_INLINE double inverse_sqrt_2pi(double) { return 0.3989422804014327; }

}  // namespace NEURON_NAMESPACE

#endif  // CPU_ELEMENTARY_H
