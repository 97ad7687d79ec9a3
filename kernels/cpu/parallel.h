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

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace jax_mps_neuron {

// XLA flushes subnormal numbers to zero on some threads and not on others. An object of this class makes its thread
// keep them, so that results do not depend on the thread.
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

constexpr int kSpins = 1000;  // about 30 microseconds

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// The number of threads for `units` units, if a thread takes `grain` at a time.
inline int64_t thread_count(int64_t units, int64_t grain) {
  const int64_t ranges = (units + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1);
  static const int64_t cores = std::max(1u, std::thread::hardware_concurrency());  // asks the system at every call
  return std::min(ranges, cores);
}

// Calls body(thread, begin, end) on disjoint ranges that cover [0, units), here and on `pool`, and returns when all are
// done. Every range but the last has `grain` units. `thread` is below thread_count, and concurrent calls have different
// ones. The caller takes ranges too and waits only for ranges that other threads have taken. So nothing waits for a
// pool that is busy or is waiting for this call.
template <typename Pool, typename Body>
void parallel_for(Pool& pool, int64_t units, int64_t grain, const Body& body) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t ranges = (units + grain - 1) / grain;
  const int64_t threads = thread_count(units, grain);
  if (threads <= 1) {
    SubnormalNumbers subnormal_numbers;
    if (units > 0) body(int64_t{0}, int64_t{0}, units);
    return;
  }

  // Outlives this call: the pool may run a task after all ranges are taken. The task then reads only `next`, so `body`
  // may be gone.
  struct State {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto state = std::make_shared<State>();
  auto work = [state, units, grain, ranges, body_pointer = &body](int64_t thread) {
    SubnormalNumbers subnormal_numbers;
    int64_t finished = 0;
    for (int64_t i; (i = state->next.fetch_add(1, std::memory_order_relaxed)) < ranges; ++finished) {
      (*body_pointer)(thread, i * grain, std::min(units, (i + 1) * grain));
    }
    if (finished == 0) return;
    if (state->done.fetch_add(finished, std::memory_order_acq_rel) + finished < ranges) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    state->all_done.notify_one();
  };
  for (int64_t i = 1; i < threads; ++i) {
    pool.Schedule([work, i] { work(i); });
  }
  work(0);
  const auto all_done = [&] { return state->done.load(std::memory_order_acquire) == ranges; };
  // The other threads finish at about the same time: spinning is faster than being woken.
  for (int i = 0; i < kSpins && !all_done(); ++i) pause();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, all_done);
}

}  // namespace jax_mps_neuron

#endif  // CPU_PARALLEL_H
