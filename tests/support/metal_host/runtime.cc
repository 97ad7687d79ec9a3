#include "runtime.h"

#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

// Built for ThreadSanitizer, every thread of every threadgroup is one of its fibers, which only a barrier of
// their group orders. It then sees what no order of the threads shows: two of them writing the same element.
// The kernels are instrumented, this file is not.
#ifdef SHIM_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif

namespace shim {
namespace {

constexpr size_t kStack = 256 * 1024;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  Position position;
  bool done = false;
#ifdef SHIM_TSAN
  void* checked = nullptr;
#endif
};

ucontext_t scheduler;
Fiber* running = nullptr;
Position group_position_now;
std::map<int, std::vector<char>> threadgroup_arrays;
void (*kernel_now)(void* const*);
void* const* buffers_now;

#ifdef SHIM_TSAN
void* const checked_scheduler = __tsan_get_current_fiber();
// Alternating, as a thread may be at the next barrier before another has left this one.
char barriers[2];
unsigned phase;

void announce(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
#endif

void to_scheduler() {
#ifdef SHIM_TSAN
  announce(checked_scheduler);
#endif
  swapcontext(&running->context, &scheduler);
}

void to_fiber(Fiber& fiber) {
  running = &fiber;
#ifdef SHIM_TSAN
  announce(fiber.checked);
#endif
  swapcontext(&scheduler, &fiber.context);
}

void run_fiber() {
  kernel_now(buffers_now);
  running->done = true;
  to_scheduler();
}

}  // namespace

const Position& current_group() { return group_position_now; }
const Position& current_thread() { return running->position; }
void barrier() {
#ifdef SHIM_TSAN
  char* here = &barriers[phase % 2];
  __tsan_release(here);
  to_scheduler();
  __tsan_acquire(here);
#else
  to_scheduler();
#endif
}

void* threadgroup_memory(int line, size_t bytes) {
#ifdef SHIM_TSAN
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
  auto& array = threadgroup_arrays[line];
  if (array.empty()) array.assign(bytes, '\xff');  // all bits set is a NaN
#ifdef SHIM_TSAN
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
#endif
  return array.data();
}

}  // namespace shim

int shim_launch(void (*kernel)(void* const*), void* const* buffers, const uint32_t* grid,
                const uint32_t* threads, uint64_t order) {
  using namespace shim;
  kernel_now = kernel;
  buffers_now = buffers;
  static std::vector<Fiber> fibers;
  const size_t count = size_t{threads[0]} * threads[1] * threads[2];
  if (fibers.size() < count) fibers = std::vector<Fiber>(count);
  std::vector<size_t> turns(count);
  std::iota(turns.begin(), turns.end(), 0);
  std::mt19937_64 random(order);
  for (group_position_now.z = 0; group_position_now.z < grid[2]; ++group_position_now.z) {
    for (group_position_now.y = 0; group_position_now.y < grid[1]; ++group_position_now.y) {
      for (group_position_now.x = 0; group_position_now.x < grid[0]; ++group_position_now.x) {
#ifdef SHIM_TSAN
        // Never freed: nothing orders that with the threads that used it.
        new std::map<int, std::vector<char>>(std::move(threadgroup_arrays));
        for (size_t i = 0; i < count; ++i) fibers[i].checked = __tsan_create_fiber(0);
        phase = 0;
#endif
        threadgroup_arrays.clear();
        for (size_t i = 0; i < count; ++i) {
          Fiber& f = fibers[i];
          f.done = false;
          f.position = {static_cast<uint32_t>(i % threads[0]),
                        static_cast<uint32_t>(i / threads[0] % threads[1]),
                        static_cast<uint32_t>(i / threads[0] / threads[1])};
          getcontext(&f.context);
          f.context.uc_stack.ss_sp = f.stack.get();
          f.context.uc_stack.ss_size = kStack;
          f.context.uc_link = nullptr;
          makecontext(&f.context, run_fiber, 0);
        }
        for (size_t finished = 0; finished < count;) {
          std::sort(turns.begin(), turns.end());
          if (order == 1) std::reverse(turns.begin(), turns.end());
          if (order > 1) std::shuffle(turns.begin(), turns.end(), random);
          for (size_t i : turns) {
            to_fiber(fibers[i]);
            finished += running->done;
          }
#ifdef SHIM_TSAN
          ++phase;
#endif
          // Between two barriers all threads stop at the same one, or all return.
          if (finished != 0 && finished != count) return 1;
        }
      }
    }
  }
  return 0;
}
