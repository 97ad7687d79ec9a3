// The neuron and its gradient on a GPU. The forward kernel computes y = f(alpha * x + bias). The gradient kernel reads
// gradient and x once; it computes the data gradient and, per column, the bias gradient and PReLU's slope gradient.
//
// Apple's compiler takes this file with its includes replaced by their text. The host's compiler and nvcc take it with
// the tests' `metal_stdlib` first on the include path. The three macros below hide what differs between them.
// Needs Metal 2.4, and Metal 3.1 for bfloat.

#include <metal_stdlib>

#ifdef __METAL_VERSION__
#define THREADGROUP_ARRAY(T, name, size) threadgroup T name size
// A kernel for threadgroups of up to `threads` threads. The bound keeps the compiler from using more registers than
// such a threadgroup has (Metal Shading Language Specification, "Compute Functions").
#define KERNEL(threads) [[kernel, max_total_threads_per_threadgroup(threads)]]
// Instantiates a kernel with `buffers` buffers under a host name (ibid., "host_name").
#define INSTANTIATE(buffers, name, ...) \
  template [[host_name(#name)]] [[kernel]] decltype(__VA_ARGS__) __VA_ARGS__;
#endif

#ifndef NEURON_INLINE
#define NEURON_INLINE static inline
#endif
// GCC warns about its own pragma in this position.
#if defined(__clang__) || defined(__CUDACC__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

namespace neuron {

// The functions that neuron_math.h needs. They are `precise` because the fast versions lose subnormal numbers,
// infinities and NaN.
NEURON_INLINE float exp(float x) { return metal::precise::exp(x); }
NEURON_INLINE float exp_negative(float x) { return exp(x); }
NEURON_INLINE float log(float x) { return metal::precise::log(x); }
NEURON_INLINE float pow(float x, float y) { return metal::precise::pow(x, y); }
NEURON_INLINE float fabs(float x) { return metal::fabs(x); }
// pow at a third of its cost. It differs from pow where the result is NaN here: |x| = 1 to the power of infinity, and
// -infinity to a non-integer power. y is uniform, so the branches are too.
NEURON_INLINE float coarse_pow(float x, float y) {
  if (metal::floor(y) != y) return metal::precise::exp2(y * metal::precise::log2(x));
  if (y == 0.0f) return 1.0f;
  float r = metal::precise::exp2(y * metal::precise::log2(metal::fabs(x)));
  float halved = 0.5f * y;
  return metal::floor(halved) != halved ? metal::copysign(r, x) : r;
}
NEURON_INLINE float tanh(float x) { return metal::precise::tanh(x); }
// e^x - 1 for x <= 0, where 1 - tanh does not cancel.
NEURON_INLINE float expm1(float x) {
  float t = metal::precise::tanh(0.5f * x);
  return 2.0f * t / (1.0f - t);
}

}  // namespace neuron

#include "neuron_math.h"
#include "neuron_four.h"

namespace neuron {

// ---- the shape of a launch --------------------------------------------------------------------

// A thread works on 4 neighbouring columns. A row of threads is one SIMD group: it reads 128 columns of a row at once,
// 512 bytes in float.
constant constexpr uint kThreadsX = 32;
constant constexpr uint kColumns = 4;
constant constexpr uint kTile = kThreadsX * kColumns;
// Rows of threads per byte of an element: 16 in float, 8 in the 16-bit types. On an H100, float gains from few large
// threadgroups, which read memory nearly in order. The 16-bit types gain from several at once, which hide arithmetic.
constant constexpr uint kThreadsYPerByte = 4;
// Rows per partial sum of a threadgroup. With fewer rows, writing the partial sums takes longer. With more, concurrent
// threadgroups lie far apart in memory, which slows an H100 down.
constant constexpr uint kStrip = 128;
// Vectors of kColumns elements per thread of a flat array, one threadgroup apart.
constant constexpr uint kFlatSteps = 8;
// Partial sums that a thread of add_strips reads at once.
constant constexpr uint kSumAhead = 8;

// The shape for elements of type S.
template <typename S>
struct Shape {
  static constant constexpr uint kThreadsY = kThreadsYPerByte * sizeof(S);
  static constant constexpr uint kThreads = kThreadsX * kThreadsY;
  static constant constexpr uint kFlatTile = kThreads * kColumns * kFlatSteps;
};

// Rows that a thread reads before it computes the first one. Bytes in flight hide the time of the arithmetic. The
// compiler cannot move the reads ahead itself, because the writes between them may alias. Types with almost no
// arithmetic read one row: more would only take registers.
template <typename Op>
struct Ahead {
  static constant constexpr uint value = 2;
};
#define ONE_AHEAD(Op)                         \
  template <>                                 \
  struct Ahead<Op> {                          \
    static constant constexpr uint value = 1; \
  };
ONE_AHEAD(None)
ONE_AHEAD(Relu)
ONE_AHEAD(Linear)
ONE_AHEAD(HardSigmoid)
ONE_AHEAD(Absolute)
ONE_AHEAD(Elu)
ONE_AHEAD(Prelu)
ONE_AHEAD(Relun)
#undef ONE_AHEAD

// The form of a type for storage S.
template <typename Op, typename S>
struct For {
  using Type = typename Coarse<Op>::Type;
};
template <typename Op>
struct For<Op, float> {
  using Type = Op;
};

// The constant buffer of every kernel; Python packs it. A step is the distance between batch entries in elements, or
// 0 for an operand that all entries share.
struct Launch {
  ulong rows;
  ulong channels;
  ulong strips;
  ulong gradient_step;
  ulong x_step;
  ulong scalars_step;
  ulong bias_step;
  ulong slope_step;
  // Whether every row of every array starts at a multiple of 4 elements.
  ulong aligned;
};

// ---- the part of a thread ---------------------------------------------------------------------

NEURON_INLINE ulong left_of(ulong size, ulong begin) { return begin < size ? size - begin : 0; }

// The elements of a thread: `count` vectors of four, `step` elements apart. `left` elements exist from `begin` on: in
// the row by column, in the array if flat.
struct Part {
  ulong begin;
  ulong step;
  uint count;
  ulong left;
  bool whole;
};

// By column: four columns in every kThreadsY-th row of the threadgroup's strip.
template <typename S>
NEURON_INLINE Part part_of_strip(constant Launch* launch, uint3 group, uint3 thread_in_group) {
  const ulong column = ulong(group.x) * kTile + thread_in_group.x * kColumns;
  constexpr uint kThreadsY = Shape<S>::kThreadsY;
  const ulong top = ulong(group.y) * kStrip;
  const ulong row = top + thread_in_group.y;
  const ulong last = metal::min(top + kStrip, launch->rows);
  Part p;
  p.left = left_of(launch->channels, column);
  p.begin = row * launch->channels + column;
  p.step = kThreadsY * launch->channels;
  p.count = p.left == 0 || row >= last ? 0 : uint((last - row + kThreadsY - 1) / kThreadsY);
  p.whole = launch->aligned != 0 && p.left >= kColumns;
  return p;
}

// Flat: kFlatSteps vectors, a threadgroup apart. At a ragged end `whole` is false and vectors past the end are skipped.
template <typename S>
NEURON_INLINE Part part_of_array(ulong elements, bool aligned, uint3 group, uint3 thread_in_group) {
  Part p;
  const uint thread_index = thread_in_group.y * kThreadsX + thread_in_group.x;
  p.begin = ulong(group.x) * Shape<S>::kFlatTile + thread_index * kColumns;
  p.step = Shape<S>::kThreads * kColumns;
  p.left = left_of(elements, p.begin);
  p.count = uint(metal::min(ulong(kFlatSteps), (p.left + p.step - 1) / p.step));
  p.whole = aligned && p.left >= (kFlatSteps - 1) * p.step + kColumns;
  return p;
}

// The elements left at step k. By column every step has the same number.
template <bool kFlat>
NEURON_INLINE ulong left_at(Part p, uint k) {
  return kFlat ? p.left - k * p.step : p.left;
}

// ---- forward ----------------------------------------------------------------------------------

template <typename Op, typename S, bool kWhole, bool kFlat>
NEURON_INLINE void forward_part(device const S* x, device S* y, Part p, Four bias, Four slope, Scalars s) {
  for (uint k = 0; k < p.count; ++k) {
    const ulong i = p.begin + k * p.step;
    const ulong left = left_at<kFlat>(p, k);
    const Four z = arguments<Op>(load<kWhole>(x + i, left), bias, s);
    store<kWhole>(y + i, left, values<Op>(z, slope, s));
  }
}

// Grid: flat (Shape::kFlatTile elements, 1, entries), or by column (kTile columns, kStrip rows, entries).
template <typename Op, typename S, bool kBias>
KERNEL(Shape<S>::kThreads)
void forward(device const S* x_all [[buffer(0)]],
             device const float* scalars_all [[buffer(1)]],
             device const float* bias_all [[buffer(2)]],
             device const float* slope_all [[buffer(3)]],
             device S* y_all [[buffer(4)]],
             constant Launch* launch [[buffer(5)]],
             uint3 group [[threadgroup_position_in_grid]],
             uint3 thread_in_group [[thread_position_in_threadgroup]]) {
  using F = typename For<Op, S>::Type;
  constexpr bool kFlat = !kBias && !HasSlope<Op>::value;
  const ulong entry = group.z;
  const ulong elements = launch->rows * launch->channels;
  const Part p = kFlat ? part_of_array<S>(elements, launch->aligned != 0, group, thread_in_group)
                       : part_of_strip<S>(launch, group, thread_in_group);
  device const S* x = x_all + entry * launch->x_step;
  device S* y = y_all + entry * elements;
  const Scalars s = scalars_of<Op>(scalars_all + entry * launch->scalars_step);
  const ulong column = ulong(group.x) * kTile + thread_in_group.x * kColumns;
  Four bias = zeros();
  Four slope = zeros();
  if (kBias) bias = load<false>(bias_all + entry * launch->bias_step + column, p.left);
  if (HasSlope<Op>::value) slope = load<false>(slope_all + entry * launch->slope_step + column, p.left);
  if (s.is_constant) {
    forward_part<Constant, S, false, kFlat>(x, y, p, bias, slope, constant_value<F>(s));
  } else if (p.whole) {
    forward_part<F, S, true, kFlat>(x, y, p, bias, slope, s);
  } else {
    forward_part<F, S, false, kFlat>(x, y, p, bias, slope, s);
  }
}

// ---- gradient ---------------------------------------------------------------------------------

struct Sums {
  Four bias, slope;
};

template <typename Op, typename S, bool kWhole, bool kFlat, bool kBiasSum, bool kSlopeSum>
NEURON_INLINE Sums gradient_part(device const S* gradient, device const S* x, device S* data, Part p,
                                 Four bias, Four slope, Scalars s) {
  Sums sums;
  sums.bias = zeros();
  sums.slope = zeros();
  constexpr uint kAhead = Ahead<Op>::value;
  uint k = 0;
  ulong i = p.begin;
  for (; kWhole && k + kAhead <= p.count; k += kAhead) {
    Four xs[kAhead];
    Four gs[kAhead];
    UNROLL
    for (uint j = 0; j < kAhead; ++j) {
      xs[j] = load<kWhole>(x + i + j * p.step, kColumns);
      gs[j] = load<kWhole>(gradient + i + j * p.step, kColumns);
    }
    UNROLL
    for (uint j = 0; j < kAhead; ++j) {
      const Four z = arguments<Op>(xs[j], bias, s);
      const Four d = derivatives<Op>(z, slope, gs[j], s);
      store<kWhole>(data + i + j * p.step, kColumns, scaled(d, s.alpha));
      if (kBiasSum) sums.bias = sum(sums.bias, d);
      if (kSlopeSum) sums.slope = sum(sums.slope, slope_terms(z, gs[j]));
    }
    i += kAhead * p.step;
  }
  for (; k < p.count; ++k) {
    const ulong left = left_at<kFlat>(p, k);
    const Four z = arguments<Op>(load<kWhole>(x + i, left), bias, s);
    const Four g = load<kWhole>(gradient + i, left);
    const Four d = derivatives<Op>(z, slope, g, s);
    store<kWhole>(data + i, left, scaled(d, s.alpha));
    if (kBiasSum) sums.bias = sum(sums.bias, d);
    if (kSlopeSum) sums.slope = sum(sums.slope, slope_terms(z, g));
    i += p.step;
  }
  return sums;
}

// Adds four columns over the threadgroup's rows of threads and writes them to partials[strip, column...].
template <typename S>
NEURON_INLINE void write_partials(threadgroup float* shared, device float* partials, Four mine, ulong left,
                                  uint tx, uint ty) {
  threadgroup float* place = shared + (ty * kThreadsX + tx) * kColumns;
  place[0] = mine.v0;
  place[1] = mine.v1;
  place[2] = mine.v2;
  place[3] = mine.v3;
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  if (ty == 0) {
    Four total = mine;
    for (uint y = 1; y < Shape<S>::kThreadsY; ++y) {
      threadgroup const float* other = shared + (y * kThreadsX + tx) * kColumns;
      Four theirs = {other[0], other[1], other[2], other[3]};
      total = sum(total, theirs);
    }
    store<false>(partials, left, total);
  }
}

// Grid: as for forward. The partials are [entries, strips, channels]; with one strip they are the sums.
template <typename Op, typename S, bool kBias, bool kBiasSum, bool kSlopeSum>
KERNEL(Shape<S>::kThreads)
void gradient(device const S* gradient_all [[buffer(0)]],
              device const S* x_all [[buffer(1)]],
              device const float* scalars_all [[buffer(2)]],
              device const float* bias_all [[buffer(3)]],
              device const float* slope_all [[buffer(4)]],
              device S* data_all [[buffer(5)]],
              device float* bias_partials [[buffer(6)]],
              device float* slope_partials [[buffer(7)]],
              constant Launch* launch [[buffer(8)]],
              uint3 group [[threadgroup_position_in_grid]],
              uint3 thread_in_group [[thread_position_in_threadgroup]]) {
  THREADGROUP_ARRAY(float, bias_shared, [Shape<S>::kThreadsY * kTile]);
  THREADGROUP_ARRAY(float, slope_shared, [Shape<S>::kThreadsY * kTile]);
  using F = typename For<Op, S>::Type;
  constexpr bool kFlat = !kBias && !HasSlope<Op>::value;
  const ulong entry = group.z;
  const ulong elements = launch->rows * launch->channels;
  const Part p = kFlat ? part_of_array<S>(elements, launch->aligned != 0, group, thread_in_group)
                       : part_of_strip<S>(launch, group, thread_in_group);
  device const S* gradient = gradient_all + entry * launch->gradient_step;
  device const S* x = x_all + entry * launch->x_step;
  device S* data = data_all + entry * elements;
  const Scalars s = scalars_of<Op>(scalars_all + entry * launch->scalars_step);
  const ulong column = ulong(group.x) * kTile + thread_in_group.x * kColumns;
  Four bias = zeros();
  Four slope = zeros();
  if (kBias) bias = load<false>(bias_all + entry * launch->bias_step + column, p.left);
  if (HasSlope<Op>::value) slope = load<false>(slope_all + entry * launch->slope_step + column, p.left);
  Sums sums;
  if (s.is_constant) {
    sums = gradient_part<Constant, S, false, kFlat, kBiasSum, kSlopeSum>(gradient, x, data, p, bias, slope,
                                                                         constant_derivative<F>(s));
  } else if (p.whole) {
    sums = gradient_part<F, S, true, kFlat, kBiasSum, kSlopeSum>(gradient, x, data, p, bias, slope, s);
  } else {
    sums = gradient_part<F, S, false, kFlat, kBiasSum, kSlopeSum>(gradient, x, data, p, bias, slope, s);
  }
  // Threads without elements also reach the barrier.
  const ulong partial = (entry * launch->strips + group.y) * launch->channels + column;
  if (kBiasSum) {
    write_partials<S>(bias_shared, bias_partials + partial, sums.bias, p.left, thread_in_group.x,
                      thread_in_group.y);
  }
  if (kSlopeSum) {
    write_partials<S>(slope_shared, slope_partials + partial, sums.slope, p.left, thread_in_group.x,
                      thread_in_group.y);
  }
}

// sums[entry, column] = the sum of partials[entry, :, column], in a fixed order. Grid: (kThreadsX columns, 1, entries).
// Each row of threads adds every kThreadsY-th strip, kSumAhead at a time.
// A template, because only templates can be instantiated under a host name.
template <typename S>
KERNEL(Shape<S>::kThreads)
void add_strips(device const S* partials [[buffer(0)]],
                device S* sums [[buffer(1)]],
                constant Launch* launch [[buffer(2)]],
                uint3 group [[threadgroup_position_in_grid]],
                uint3 thread_in_group [[thread_position_in_threadgroup]]) {
  constexpr uint kThreadsY = Shape<S>::kThreadsY;
  THREADGROUP_ARRAY(float, shared, [kThreadsY * kThreadsX]);
  const ulong column = ulong(group.x) * kThreadsX + thread_in_group.x;
  const bool there = column < launch->channels;
  const ulong last = there ? launch->strips : 0;
  device const S* from = partials + group.z * launch->strips * launch->channels + column;
  float total = 0.0f;
  ulong strip = thread_in_group.y;
  for (; strip + (kSumAhead - 1) * kThreadsY < last; strip += kSumAhead * kThreadsY) {
    float v[kSumAhead];
    UNROLL
    for (uint j = 0; j < kSumAhead; ++j) v[j] = float(from[(strip + j * kThreadsY) * launch->channels]);
    UNROLL
    for (uint j = 0; j < kSumAhead; ++j) total = total + v[j];
  }
  for (; strip < last; strip += kThreadsY) total = total + float(from[strip * launch->channels]);
  shared[thread_in_group.y * kThreadsX + thread_in_group.x] = total;
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  if (thread_in_group.y == 0 && there) {
    for (uint y = 1; y < kThreadsY; ++y) total = total + shared[y * kThreadsX + thread_in_group.x];
    sums[group.z * launch->channels + column] = S(total);
  }
}

}  // namespace neuron
