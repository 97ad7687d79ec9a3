// How elements lie in memory and what they are computed in: float16 and bfloat16 are read into float
// and rounded to nearest even on the way back, by integer arithmetic that vectorizes everywhere.

#ifndef CPU_STORAGE_H
#define CPU_STORAGE_H

#include "elementary.h"

namespace NEURON_NAMESPACE {

struct Float32 {
  using Stored = float;
  using Compute = float;
  NEURON_INLINE float load(float v) { return v; }
  NEURON_INLINE float store(float v) { return v; }
};

struct Float64 {
  using Stored = double;
  using Compute = double;
  NEURON_INLINE double load(double v) { return v; }
  NEURON_INLINE double store(double v) { return v; }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Compute = float;
  NEURON_INLINE float load(uint16_t v) { return bit_cast<float>(static_cast<uint32_t>(v) << 16); }
  NEURON_INLINE uint16_t store(float v) {
    uint32_t bits = bit_cast<uint32_t>(v);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<uint16_t>(v == v ? rounded : (bits >> 16) | 0x40u);
  }
};

struct Float16 {
  using Stored = uint16_t;
  using Compute = float;
  // Exponent and mantissa move into place and are rebiased by a multiplication, which makes subnormal
  // halves normal floats; infinity and NaN get the full exponent.
  NEURON_INLINE float load(uint16_t v) {
    uint32_t magnitude = static_cast<uint32_t>(v & 0x7fff) << 13;
    uint32_t rebiased = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
    uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : rebiased;
    return bit_cast<float>(bits | static_cast<uint32_t>(v & 0x8000) << 16);
  }
  // A normal result rounds in integer arithmetic; a subnormal one (below 2^-14) by adding 1/2, whose
  // last place is the smallest subnormal half.
  NEURON_INLINE uint16_t store(float v) {
    uint32_t bits = bit_cast<uint32_t>(v);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half;  // 65520 and above round to infinity
    half = magnitude > 0x7f800000u ? 0x7e00u : half;
    return static_cast<uint16_t>(half | (bits >> 16 & 0x8000u));
  }
};

}  // namespace NEURON_NAMESPACE

#endif  // CPU_STORAGE_H
