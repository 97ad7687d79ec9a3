// Times the CPU kernels on one thread, on strips that stay in the caches, without JAX. See kernels_alone.py.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/isa.h"

namespace {

using namespace jax_mps_neuron;
constexpr int64_t kRows = 8, kWidth = 1024;
constexpr int kRepeats = 40, kTurns = 30;

// kRows x kWidth normal random numbers. float16 and bfloat16 are truncated.
std::vector<char> numbers(Storage storage, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<char> bytes(kRows * kWidth * 4);
  for (int64_t i = 0; i < kRows * kWidth; ++i) {
    const float x = normal(random);
    uint32_t of;
    std::memcpy(&of, &x, 4);
    const int exponent = static_cast<int>(of >> 23 & 0xff) - 112;  // float16's
    const uint16_t half = static_cast<uint16_t>((of >> 16 & 0x8000) | (exponent > 0 ? exponent << 10 | (of >> 13 & 0x3ff) : 0));
    const uint16_t leading = static_cast<uint16_t>(of >> 16);
    if (storage == Storage::float32) std::memcpy(&bytes[i * 4], &of, 4);
    if (storage == Storage::float16) std::memcpy(&bytes[i * 2], &half, 2);
    if (storage == Storage::bfloat16) std::memcpy(&bytes[i * 2], &leading, 2);
  }
  return bytes;
}

// The shortest time per element, in nanoseconds.
double time_of(void (*kernel)(const Strip&), const Strip& strip) {
  double best = 1e9;
  for (int turn = 0; turn < kTurns; ++turn) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kRepeats; ++i) kernel(strip);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / (kRepeats * kRows * kWidth));
  }
  return best;
}

}  // namespace

// Reads lines of type, a, b, c. Prints the times of forward and gradient in float32, float16 and bfloat16.
int main() {
  int type;
  float scalars[4] = {1};
  while (std::scanf("%d %f %f %f", &type, scalars + 1, scalars + 2, scalars + 3) == 4) {
    for (Storage storage : {Storage::float32, Storage::float16, Storage::bfloat16}) {
      const std::vector<char> gradient = numbers(storage, 1), x = numbers(storage, 2);
      std::vector<char> result(gradient.size());
      std::vector<float> bias(kWidth + 2 * kMostLanes, 0.1f), slope(bias), bias_sum(bias), slope_sum(bias);
      Strip s{};
      s.gradient = gradient.data();
      s.x = x.data();
      s.result = result.data();
      s.bias = bias.data();
      s.bias_sum = bias_sum.data();
      s.scalars = scalars;
      if (type == 10) s.slope = slope.data(), s.slope_sum = slope_sum.data();
      s.rows = kRows;
      s.width = s.stride = kWidth;
      const Kernels& k = kernels(storage, type);
      std::printf("%.3f %.3f ", time_of(k.forward, s), time_of(k.gradient, s));
    }
    std::printf("\n");
  }
}
