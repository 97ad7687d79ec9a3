// A parallel loop over XLA's intra-op thread pool.

#ifndef CPU_PARALLEL_H
#define CPU_PARALLEL_H

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace jax_mps_neuron {

// XLA runs its CPU programs with subnormal numbers flushed to zero on some threads and not on others.
// While one of these lives, this thread computes with them, so a result does not depend on the thread.
class SubnormalNumbers {
 public:
#if defined(__x86_64__)
  SubnormalNumbers() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~0x8040u); }  // FTZ and DAZ off
  ~SubnormalNumbers() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  SubnormalNumbers() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ & ~(uint64_t{1} << 24)));  // FZ off
  }
  ~SubnormalNumbers() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// Calls body(begin, end) on disjoint ranges that cover [0, units), of at least `grain` units each but
// the last, here and on `pool`, and returns when all are done. The caller takes ranges like any other
// thread and waits only for ranges that have been taken, so a pool that is busy, or is waiting for
// this very call, delays nothing.
template <typename Pool, typename Body>
void parallel_for(Pool& pool, int64_t units, int64_t grain, const Body& body) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t ranges = (units + grain - 1) / grain;
  const int64_t threads =
      std::min<int64_t>(ranges, std::max(1u, std::thread::hardware_concurrency()));
  if (threads <= 1) {
    SubnormalNumbers subnormal_numbers;
    if (units > 0) body(int64_t{0}, units);
    return;
  }

  // Outlives this call: a helper may be scheduled after all ranges are taken. It then reads `next`
  // alone, so `body` may be gone.
  struct State {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable all_done;
    int64_t done = 0;
  };
  auto state = std::make_shared<State>();
  auto work = [state, units, grain, ranges, body_pointer = &body] {
    SubnormalNumbers subnormal_numbers;
    int64_t finished = 0;
    for (int64_t i; (i = state->next.fetch_add(1, std::memory_order_relaxed)) < ranges; ++finished) {
      (*body_pointer)(i * grain, std::min(units, (i + 1) * grain));
    }
    if (finished == 0) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    state->done += finished;
    if (state->done == ranges) state->all_done.notify_one();
  };
  for (int64_t i = 1; i < threads; ++i) {
    auto helper = work;
    pool.Schedule(std::move(helper));
  }
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == ranges; });
}

}  // namespace jax_mps_neuron

#endif  // CPU_PARALLEL_H
