// A whole call: batch entries of [rows, channels], cut into strips for threads.

#ifndef CPU_ARRAYS_H
#define CPU_ARRAYS_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "parallel.h"
#include "strips.h"

namespace jax_mps_neuron {

constexpr int kBatchAxes = 32;

// The leading axes, whose entries are numbered in the order of memory: the first axis varies slowest.
struct Batch {
  int axes = 0;
  int64_t sizes[kBatchAxes];

  int64_t entries() const {
    int64_t n = 1;
    for (int i = 0; i < axes; ++i) n *= sizes[i];
    return n;
  }
};

// An operand, and where its batch entries are. Its step is 0 along an axis whose entries share it.
struct Operand {
  bool present = false;
  const char* data = nullptr;
  int64_t steps[kBatchAxes];  // bytes from one entry to the next along each axis

  const char* at(int64_t entry, const Batch& batch) const {
    const char* p = data;
    for (int i = batch.axes - 1; i >= 0; --i) {
      p += entry % batch.sizes[i] * steps[i];
      entry /= batch.sizes[i];
    }
    return p;
  }

  // Whether all entries share the operand, and whether none does. Both are true of an absent operand.
  bool shared(const Batch& batch) const {
    return !present || std::all_of(steps, steps + batch.axes, [](int64_t step) { return step == 0; });
  }
  bool contiguous(const Batch& batch) const {
    if (!present) return true;
    for (int i = 0; i < batch.axes; ++i) {
      if (batch.sizes[i] != 1 && steps[i] == 0) return false;
    }
    return true;
  }
};

struct Arrays {
  Batch batch;
  int64_t rows = 0, channels = 0;
  int64_t element_size = 0, compute_size = 0;  // bytes of an element, and of a number of the compute type
  Operand gradient, x, scalars, bias, slope;
  char* result = nullptr;                      // [*batch, rows, channels]
  char* bias_sum = nullptr;                    // [*batch, channels] in the compute type, or null
  char* slope_sum = nullptr;                   // likewise

  bool by_column() const { return bias.present || slope.present; }
  bool sums() const { return bias_sum || slope_sum; }

  // Makes one entry of all, with the rows of all, if they share scalars, bias and slopes and no sum is wanted.
  void join_entries() {
    const bool alike = scalars.shared(batch) && bias.shared(batch) && slope.shared(batch);
    if (sums() || !alike || !x.contiguous(batch) || !gradient.contiguous(batch)) return;
    rows *= batch.entries();
    batch.axes = 0;
  }
};

// Columns per strip. Their bias, slopes and sums fit into the second-level cache. Wider rows are cut and read in
// pieces; short pieces take up to twice as long.
constexpr int64_t kColumns = 8192;
// Rows per strip: enough to make the cost of its sums negligible, few enough to keep many threads busy and the rounding
// error of a running sum small.
constexpr int64_t kRows = 64;
// The width that short rows are joined to, and the elements per strip of a flat array.
constexpr int64_t kRepeated = 1024;
constexpr int64_t kFlat = 1 << 16;
// Elements per thread. With fewer (less than about 10 microseconds of work) another thread does not pay.
constexpr int64_t kGrain = 1 << 15;

// The cut of a batch entry. `repeat` rows are joined into one, so that few channels also give long inner loops, of
// whole vectors if possible. The remaining rows are the tail, which the last strip includes. The cut depends only on
// shapes, so sums do not depend on the number of threads.
struct Cut {
  explicit Cut(const Arrays& a) {
    const bool flat = !a.by_column();
    const int64_t elements = a.rows * a.channels;
    repeat = flat ? 1 : std::max<int64_t>(1, std::min(kRepeated / a.channels, a.rows));
    if (repeat > kMostLanes) repeat -= repeat % kMostLanes;
    width = flat ? elements : repeat * a.channels;
    rows = flat ? 1 : a.rows / repeat;
    tail = flat ? 0 : a.rows % repeat * a.channels;
    tile = flat ? kFlat : kColumns;
    tiles = (width + tile - 1) / tile;
    strips = (rows + kRows - 1) / kRows;
  }

  int64_t repeat, width, rows, tail;
  int64_t tile, tiles, strips;
};

// The working memory of a thread: bias, slope and sums per column of a strip, in the compute type and padded as
// strips.h requires. It is no larger than these strips need, because fresh memory costs page faults.
class Columns {
 public:
  Columns(const Cut& cut, const Arrays& a)
      : size_(a.compute_size), bytes_(padded(std::min(cut.tile, cut.width)) * size_) {}

  // The bytes per thread, and the four parts.
  int64_t bytes() const { return 4 * bytes_; }
  char* bias(char* space) const { return space; }
  char* slope(char* space) const { return space + bytes_; }
  char* bias_sum(char* space) const { return space + 2 * bytes_; }
  char* slope_sum(char* space) const { return space + 3 * bytes_; }

  char* zeros(char* part, int64_t width) const {
    return static_cast<char*>(std::memset(part, 0, padded(width) * size_));
  }

  // Fills a part with columns [first, first + width) of a per-channel operand, repeated, or with zeros if it is absent.
  char* fill(char* part, const Operand& operand, int64_t entry, const Cut& cut, const Arrays& a, int64_t first,
             int64_t width) const {
    if (!operand.present) return zeros(part, width);
    const int64_t bytes = std::min(width, a.channels) * size_;
    const char* from = operand.at(entry, a.batch) + first * size_;
    for (int64_t i = 0; i < cut.repeat; ++i) std::memcpy(part + i * bytes, from, bytes);
    std::memset(part + width * size_, 0, (padded(width) - width) * size_);
    return part;
  }

 private:
  // At least kMostLanes more, in whole cache lines.
  static int64_t padded(int64_t width) { return (width / kMostLanes + 2) * kMostLanes; }

  int64_t size_, bytes_;
};

// sums[j] = the sum of the `repeat` sums of channel j.
template <typename T>
void fold(const char* repeated, char* sums, int64_t repeat, int64_t width) {
  const T* from = reinterpret_cast<const T*>(repeated);
  T* to = reinterpret_cast<T*>(sums);
  std::memcpy(to, from, width * sizeof(T));
  for (int64_t i = 1; i < repeat; ++i) {
    for (int64_t j = 0; j < width; ++j) to[j] += from[i * width + j];
  }
}

// Columns per call of add_strips.
constexpr int64_t kAdded = 512;

// sums[entry, j] = the sum of partials[entry, :, j], in double, for the existing columns j in [first, first + kAdded).
template <typename T>
void add_strips(const char* partials, char* sums, int64_t strips, int64_t channels, int64_t entry,
                int64_t first) {
  const T* from = reinterpret_cast<const T*>(partials) + entry * strips * channels + first;
  T* to = reinterpret_cast<T*>(sums) + entry * channels + first;
  const int64_t width = std::min(kAdded, channels - first);
  double total[kAdded] = {};
  for (int64_t i = 0; i < strips; ++i) {
    for (int64_t j = 0; j < width; ++j) total[j] += from[i * channels + j];
  }
  for (int64_t j = 0; j < width; ++j) to[j] = static_cast<T>(total[j]);
}

// Asks for large pages for memory that may be fresh. A page fault takes about as long as computing the page's 4 KiB.
inline void prefer_large_pages(char* begin, int64_t bytes) {
#if defined(__linux__)
  constexpr int64_t kLargePage = 1 << 21;
  if (bytes < 2 * kLargePage) return;
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + kLargePage - 1) & ~uintptr_t{kLargePage - 1};
  madvise(reinterpret_cast<void*>(first), (address + bytes - first) & ~(kLargePage - 1), MADV_HUGEPAGE);
#else
  (void)begin, (void)bytes;
#endif
}

// Runs `kernel` over the arrays; T is the type of sums. Returns false if there is no memory for the partial sums (for
// each sum, one number per column and kRows rows) or for the threads.
template <typename T, typename Pool>
bool run(Pool& pool, Arrays a, void (*kernel)(const Strip&)) {
  a.join_entries();
  const int64_t entries = a.batch.entries();
  if (entries == 0 || a.channels == 0 || a.rows == 0) {
    const int64_t bytes = entries * a.channels * a.compute_size;
    if (a.bias_sum) std::memset(a.bias_sum, 0, bytes);
    if (a.slope_sum) std::memset(a.slope_sum, 0, bytes);
    return true;
  }
  const Cut cut(a);
  const Columns columns(cut, a);
  if (a.result != a.gradient.data) {
    prefer_large_pages(a.result, entries * a.rows * a.channels * a.element_size);
  }

  // The partial sums, [entries, strips, channels]. A single strip writes the results directly.
  std::unique_ptr<char[]> partials;
  char* bias_sums = a.bias_sum;
  char* slope_sums = a.slope_sum;
  if (a.sums() && cut.strips > 1) {
    const int64_t bytes = entries * cut.strips * a.channels * a.compute_size;
    partials.reset(new (std::nothrow) char[bytes * (bias_sums && slope_sums ? 2 : 1)]);
    if (!partials) return false;
    if (slope_sums) slope_sums = partials.get() + (bias_sums ? bytes : 0);
    if (bias_sums) bias_sums = partials.get();
  }

  auto run_strip = [&](int64_t entry, int64_t strip, int64_t tile, char* space) {
    const int64_t first = tile * cut.tile;
    const int64_t width = std::min(cut.tile, cut.width - first);
    const int64_t row = strip * kRows;
    const int64_t offset = entry * a.rows * a.channels + row * cut.width + first;
    auto at = [&](const Operand& operand) {
      return operand.at(entry, a.batch) + (row * cut.width + first) * a.element_size;
    };
    Strip s{};
    if (a.gradient.present) s.gradient = at(a.gradient);
    s.x = at(a.x);
    s.result = a.result + offset * a.element_size;
    if (a.bias.present || a.sums()) {
      s.bias = columns.fill(columns.bias(space), a.bias, entry, cut, a, first, width);
    }
    if (a.slope.present) {
      s.slope = columns.fill(columns.slope(space), a.slope, entry, cut, a, first, width);
    }
    if (a.sums()) {
      s.bias_sum = columns.zeros(columns.bias_sum(space), width);
      if (a.slope.present) s.slope_sum = columns.zeros(columns.slope_sum(space), width);
    }
    s.scalars = a.scalars.at(entry, a.batch);
    s.rows = std::min(kRows, cut.rows - row);
    s.width = width;
    s.stride = cut.width;
    kernel(s);

    if (cut.tail && strip == cut.strips - 1) {
      const int64_t skip = s.rows * cut.width * a.element_size;
      if (s.gradient) s.gradient = static_cast<const char*>(s.gradient) + skip;
      s.x = static_cast<const char*>(s.x) + skip;
      s.result = static_cast<char*>(s.result) + skip;
      s.rows = 1;
      s.width = cut.tail;
      kernel(s);
    }

    const int64_t sum = ((entry * cut.strips + strip) * a.channels + first) * a.compute_size;
    const int64_t folded = width / cut.repeat;
    if (bias_sums) fold<T>(columns.bias_sum(space), bias_sums + sum, cut.repeat, folded);
    if (slope_sums) fold<T>(columns.slope_sum(space), slope_sums + sum, cut.repeat, folded);
  };

  const int64_t units = entries * cut.strips * cut.tiles;
  const int64_t elements = entries * a.rows * a.channels;
  const int64_t grain = kGrain * units / elements;
  constexpr int64_t kLine = 64;
  std::unique_ptr<char[]> spaces;
  char* space = nullptr;
  if (a.by_column()) {
    spaces.reset(new (std::nothrow) char[thread_count(units, grain) * columns.bytes() + kLine]);
    if (!spaces) return false;
    space = spaces.get() + (-reinterpret_cast<uintptr_t>(spaces.get()) & (kLine - 1));
  }
  parallel_for(pool, units, grain, [&](int64_t thread, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      run_strip(i / cut.tiles / cut.strips, i / cut.tiles % cut.strips, i % cut.tiles,
                space + thread * columns.bytes());
    }
  });
  if (partials) {
    const int64_t pieces = (a.channels + kAdded - 1) / kAdded;
    const int64_t added = std::min(kAdded, a.channels) * cut.strips;
    parallel_for(pool, entries * pieces, kGrain / added, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t m = i / pieces, first = i % pieces * kAdded;
        if (bias_sums) add_strips<T>(bias_sums, a.bias_sum, cut.strips, a.channels, m, first);
        if (slope_sums) add_strips<T>(slope_sums, a.slope_sum, cut.strips, a.channels, m, first);
      }
    });
  }
  return true;
}

}  // namespace jax_mps_neuron

#endif  // CPU_ARRAYS_H
