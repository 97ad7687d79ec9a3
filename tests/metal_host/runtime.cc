#include "runtime.h"

#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace shim {
namespace {

constexpr size_t kStack = 64 * 1024;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  Position position;
  bool done = false;
};

ucontext_t scheduler;
Fiber* running = nullptr;
Position group_position_now;
std::map<int, std::vector<char>> threadgroup_arrays;
void (*kernel_now)(void* const*);
void* const* buffers_now;

void run_fiber() {
  kernel_now(buffers_now);
  running->done = true;
  swapcontext(&running->context, &scheduler);
}

}  // namespace

const Position& current_group() { return group_position_now; }
const Position& current_thread() { return running->position; }
void barrier() { swapcontext(&running->context, &scheduler); }

void* threadgroup_memory(int line, size_t bytes) {
  auto& array = threadgroup_arrays[line];
  if (array.empty()) array.assign(bytes, '\xff');  // all bits set is a NaN
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
            running = &fibers[i];
            swapcontext(&scheduler, &running->context);
            finished += running->done;
          }
          // Between two barriers all threads stop at the same one, or all return.
          if (finished != 0 && finished != count) return 1;
        }
      }
    }
  }
  return 0;
}
