// Runs single strips of the CPU kernels, as requested on standard input, with every array between guards.
//
// A request is 12 int64 (below), alpha and the neuron's a, b, c, and the arrays without gaps: x, gradient
// (unless forward), bias, slope, bias sums and slope sums where they are present. The answer is an int64, 0 or
// what went wrong (`Fault`), the result and the sums. `driver --isas` lists the instruction sets instead.
//
// Arrays lie between two pages that may not be touched: they end at the last byte before the second one, or
// begin at the first byte after the first, or some bytes later. So whoever reads past an end is killed, and
// whoever writes into the rest of the pages, or between two rows, is found out.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/cpu/isa.h"

namespace {

using jax_mps_neuron::Storage;
using jax_mps_neuron::Strip;

constexpr unsigned char kGuard = 0xA5;

enum Fault : int64_t { kNone, kGuardsOfResult, kGuardsOfSums, kOperandChanged };

struct Request {
  int64_t storage, neuron_type, gradient;  // 0: forward, 1: of x, 2: of y
  int64_t rows, width, stride;
  int64_t at_end, offset;  // where arrays lie; offset in bytes, from the begin
  int64_t bias, slope, sums;
  int64_t in_place;        // the result takes the gradient's memory
};

bool read_exactly(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

void must(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "driver: %s\n", what);
  std::exit(2);
}

// `rows` runs of `width` bytes, `stride` bytes apart, and `padding` bytes that may be read.
class Array {
 public:
  Array(const Request& request, int64_t rows, int64_t width, int64_t stride, int64_t padding)
      : rows_(rows), width_(width), stride_(stride) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t bytes = (rows - 1) * stride + width + padding;
    room_ = (bytes + request.offset + page - 1) / page * page;
    pages_ = static_cast<unsigned char*>(
        mmap(nullptr, room_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    must(pages_ != MAP_FAILED, "no memory");
    mapped_ = room_ + 2 * page;
    begin_ = pages_ + page;
    must(mprotect(begin_, room_, PROT_READ | PROT_WRITE) == 0, "no access to memory");
    std::memset(begin_, kGuard, room_);
    data_ = begin_ + (request.at_end ? room_ - bytes : request.offset);
  }
  ~Array() { munmap(pages_, mapped_); }
  Array(const Array&) = delete;

  void read() {
    for (int64_t i = 0; i < rows_; ++i) must(read_exactly(data_ + i * stride_, width_), "a short request");
    before_.assign(begin_, begin_ + room_);
  }
  void write() const {
    for (int64_t i = 0; i < rows_; ++i) std::fwrite(data_ + i * stride_, 1, width_, stdout);
  }
  bool unchanged() const { return std::memcmp(before_.data(), begin_, room_) == 0; }
  bool guards_hold() const {
    const unsigned char* next = begin_;  // the first byte that may not have been written
    for (int64_t i = 0; i < rows_; ++i) {
      for (; next < data_ + i * stride_; ++next) {
        if (*next != kGuard) return false;
      }
      next += width_;
    }
    for (; next < begin_ + room_; ++next) {
      if (*next != kGuard) return false;
    }
    return true;
  }
  void* data() { return data_; }

 private:
  int64_t rows_, width_, stride_;
  int64_t room_, mapped_;
  unsigned char *pages_, *begin_, *data_;
  std::vector<unsigned char> before_;
};

void serve(const Request& r) {
  const int64_t element = r.storage == static_cast<int64_t>(Storage::float64) ? 8
                          : r.storage == static_cast<int64_t>(Storage::float32) ? 4 : 2;
  const int64_t compute = element == 8 ? 8 : 4;
  const int64_t padding = 2 * jax_mps_neuron::kMostLanes * compute;  // of what is per column: strips.h
  auto elements = [&] { return Array(r, r.rows, r.width * element, r.stride * element, 0); };
  auto columns = [&] { return Array(r, 1, r.width * compute, r.width * compute, padding); };

  Array scalars(r, 1, 4 * compute, 4 * compute, 0);
  Array x = elements(), gradient = elements(), result = elements();
  Array bias = columns(), slope = columns(), bias_sum = columns(), slope_sum = columns();
  scalars.read();
  x.read();
  if (r.gradient) gradient.read();
  if (r.bias) bias.read();
  if (r.slope) slope.read();
  if (r.sums) bias_sum.read();
  if (r.sums && r.slope) slope_sum.read();

  Array& written = r.in_place ? gradient : result;
  Strip strip{};
  strip.scalars = scalars.data();
  strip.x = x.data();
  if (r.gradient) strip.gradient = gradient.data();
  strip.result = written.data();
  if (r.bias) strip.bias = bias.data();
  if (r.slope) strip.slope = slope.data();
  if (r.sums) strip.bias_sum = bias_sum.data();
  if (r.sums && r.slope) strip.slope_sum = slope_sum.data();
  strip.rows = r.rows;
  strip.width = r.width;
  strip.stride = r.stride;
  const auto& kernels =
      jax_mps_neuron::kernels(static_cast<Storage>(r.storage), static_cast<int>(r.neuron_type));
  (r.gradient == 2 ? kernels.gradient_of_value : r.gradient ? kernels.gradient : kernels.forward)(strip);

  int64_t fault = kNone;
  if (!bias_sum.guards_hold() || !slope_sum.guards_hold()) fault = kGuardsOfSums;
  if (!written.guards_hold()) fault = kGuardsOfResult;
  if (!scalars.unchanged() || (r.bias && !bias.unchanged()) || (r.slope && !slope.unchanged())) {
    fault = kOperandChanged;
  }
  if (!x.unchanged() || (r.gradient && &written != &gradient && !gradient.unchanged())) {
    fault = kOperandChanged;
  }
  std::fwrite(&fault, sizeof fault, 1, stdout);
  written.write();
  if (r.sums) bias_sum.write();
  if (r.sums && r.slope) slope_sum.write();
}

}  // namespace

int main(int argc, char** argv) {
  must(argc == 2, "it takes the name of an instruction set, or --isas");
  if (std::strcmp(argv[1], "--isas") == 0) {
    for (int i = 0; jmn_isa(i); ++i) std::puts(jmn_isa(i));
    return 0;
  }
  must(jmn_use_isa(argv[1]) == 0, "this CPU has no such instruction set");
  Request request;
  while (read_exactly(&request, sizeof request)) serve(request);
  return 0;
}
