// Elementary functions for the CPU kernels: branch-free in float, so that the compiler vectorizes the
// loops they are inlined into; the C library's in double. IEEE special values throughout.
//
// Included once per instruction set, inside its own namespace, so that the linker can never replace a
// portable copy of a function with one compiled for a newer CPU.

#ifndef CPU_ELEMENTARY_H
#define CPU_ELEMENTARY_H

#include <cmath>
#include <cstdint>
#include <cstring>

namespace NEURON_NAMESPACE {

template <typename To, typename From>
NEURON_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

NEURON_INLINE float fabs(float x) { return __builtin_fabsf(x); }
NEURON_INLINE double fabs(double x) { return __builtin_fabs(x); }

// Nearest integer of |x| < 2^22 in the low mantissa bits of a float of this magnitude: addition rounds.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23

struct Reduced {
  float r;    // x - n log(2), |r| <= log(2) / 2
  float tail; // expm1(r)
  int32_t n;
};

// Cody and Waite's reduction x = n log(2) + r, and expm1(r) as a polynomial, minimax 3e-9.
// Outside [-104, 89], where e^x underflows to 0 or overflows, x is clamped; NaN passes.
NEURON_INLINE Reduced reduce(float x) {
  x = -104.0f > x ? -104.0f : x;
  x = 89.0f < x ? 89.0f : x;
  float shifted = x * 1.44269504f + kRound;
  float n = shifted - kRound;
  float r = x - n * 0.693359375f;  // log(2) in two parts, the first exact in 10 bits
  r = r + n * 2.12194440e-4f;
  float p = 1.98577982e-4f;
  p = p * r + 1.39336067e-3f;
  p = p * r + 8.33336078e-3f;
  p = p * r + 4.16664667e-2f;
  p = p * r + 0.166666672f;
  p = p * r + 0.5f;
  return {r, p * (r * r) + r, bit_cast<int32_t>(shifted) - bit_cast<int32_t>(kRound)};
}

NEURON_INLINE float power_of_two(int32_t n) {
  return bit_cast<float>(static_cast<uint32_t>(n + 127) << 23);
}

// 2^n in two factors, since n reaches from -150 (subnormal results) to 128.
NEURON_INLINE float exp(float x) {
  Reduced e = reduce(x);
  int32_t half = e.n >> 1;
  return (e.tail + 1.0f) * power_of_two(half) * power_of_two(e.n - half);
}

// For x <= 88: 2^n (expm1(r) + 1) - 1, ordered so that nothing cancels near 0.
NEURON_INLINE float expm1(float x) {
  Reduced e = reduce(x);
  float scale = power_of_two(e.n < -60 ? -60 : e.n);
  return scale * e.tail + (scale - 1.0f);
}

NEURON_INLINE float tanh(float x) {
  float e = expm1(x < 0.0f ? x + x : -(x + x));
  float t = e / (2.0f + e);  // -tanh(|x|)
  return bit_cast<float>((bit_cast<uint32_t>(t) & 0x7fffffffu) | (bit_cast<uint32_t>(x) & 0x80000000u));
}

// x = 2^n m with m in [sqrt(1/2), sqrt(2)); log(m) = f - f^2/2 + f^3 p(f), f = m - 1, minimax 7e-8 of
// the last term.
NEURON_INLINE float log(float x) {
  bool subnormal = x < 1.17549435e-38f;
  uint32_t bits = bit_cast<uint32_t>(subnormal ? x * 8388608.0f : x);
  int32_t n = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
  float f = bit_cast<float>(bits - (static_cast<uint32_t>(n) << 23)) - 1.0f;
  float k = static_cast<float>(n) - (subnormal ? 23.0f : 0.0f);
  float p = 7.03854337e-2f;
  p = p * f - 0.115160659f;
  p = p * f + 0.116773613f;
  p = p * f - 0.12419977f;
  p = p * f + 0.142492726f;
  p = p * f - 0.166680619f;
  p = p * f + 0.200007156f;
  p = p * f - 0.24999994f;
  p = p * f + 0.333333313f;
  float y = f * (f * f) * p;
  y = y - k * 2.12194440e-4f;
  y = y - 0.5f * (f * f);
  y = y + f;
  y = y + k * 0.693359375f;
  constexpr float infinity = __builtin_inff();
  y = x < infinity ? y : x;  // infinity and NaN
  y = x == 0.0f ? -infinity : y;
  return x < 0.0f ? __builtin_nanf("") : y;
}

// x^y by 2^(y log2 |x|) in double, which keeps the product's rounding out of the result.
NEURON_INLINE float pow(float x, float y) {
  constexpr double infinity = __builtin_inf();
  constexpr double integer_bits = 4503599627370496.0;  // 2^52: its low mantissa bits hold an integer
  constexpr double rounding = 6755399441055744.0;      // 1.5 * 2^52
  double magnitude = static_cast<double>(x < 0.0f ? -x : x);

  // log2: |x| = 2^n m, m in [sqrt(1/2), sqrt(2)); s = (m - 1) / (m + 1); minimax 4e-12.
  uint64_t bits = bit_cast<uint64_t>(magnitude);
  uint64_t biased = (bits + 0x00095f619980c433ULL) >> 52;  // 1023 + n
  double n = bit_cast<double>(biased | 0x4330000000000000ULL) - (integer_bits + 1023.0);
  double m = bit_cast<double>(bits - (biased << 52) + 0x3ff0000000000000ULL);
  double s = (m - 1.0) / (m + 1.0);
  double q = s * s;
  double p = 0.34075904612855606;
  p = p * q + 0.4116712270077703;
  p = p * q + 0.5770836085134269;
  p = p * q + 0.9617966732261506;
  p = p * q + 2.885390081790171;
  double exponent = s * p + n;
  exponent = magnitude == 0.0 ? -infinity : exponent;
  exponent = magnitude < infinity ? exponent : magnitude;  // infinity and NaN

  // 2^t; 2^1000 and 2^-1000 become infinity and 0 in float. x^0 and 1^y are 1 even for NaN.
  double t = exponent * static_cast<double>(y);
  t = (y == 0.0f) | (x == 1.0f) | ((magnitude == 1.0) & (y == y)) ? 0.0 : t;
  t = -1000.0 > t ? -1000.0 : t;
  t = 1000.0 < t ? 1000.0 : t;
  double shifted = t + rounding;
  double f = t - (shifted - rounding);
  double e = 1.520191340404721e-05;
  e = e * f + 0.00015469293757261699;
  e = e * f + 0.001333392262096665;
  e = e * f + 0.009618027245530469;
  e = e * f + 0.05550410353349547;
  e = e * f + 0.24022651198218398;
  e = e * f + 0.6931471807284845;
  e = e * f + 0.9999999999616759;
  double scale = bit_cast<double>((bit_cast<uint64_t>(shifted) << 52) + 0x3ff0000000000000ULL);
  float result = static_cast<float>(e * scale);

  // A negative base: the sign of an odd power, NaN for a power that is not an integer.
  float y_floor = std::floor(y);
  float half_floor = std::floor(0.5f * y);
  bool odd = y_floor - (half_floor + half_floor) == 1.0f;
  bool integer = y_floor == y;
  bool negative = bit_cast<int32_t>(x) < 0;
  result = negative & odd & integer ? -result : result;
  bool finite_negative = (x < 0.0f) & (x > -__builtin_inff());
  return finite_negative & !integer & (y == y) ? __builtin_nanf("") : result;
}

NEURON_INLINE double exp(double x) { return std::exp(x); }
NEURON_INLINE double expm1(double x) { return std::expm1(x); }
NEURON_INLINE double tanh(double x) { return std::tanh(x); }
NEURON_INLINE double log(double x) { return std::log(x); }
NEURON_INLINE double pow(double x, double y) { return std::pow(x, y); }
NEURON_INLINE double log1p_unit(double x) { return std::log1p(x); }
NEURON_INLINE double normal_tail(double r, double) { return 0.5 * std::erfc(r * 0.7071067811865476); }
NEURON_INLINE double inverse_sqrt_2pi(double) { return 0.3989422804014327; }

}  // namespace NEURON_NAMESPACE

#endif  // CPU_ELEMENTARY_H
