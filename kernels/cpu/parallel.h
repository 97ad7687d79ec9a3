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

constexpr int kSpins = 1000;  // some 30 microseconds

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Threads for so many units, of which one thread takes `grain` at a time.
inline int64_t thread_count(int64_t units, int64_t grain) {
  const int64_t ranges = (units + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1);
  static const int64_t cores = std::max(1u, std::thread::hardware_concurrency());  // asks the system each time
  return std::min(ranges, cores);
}

// Calls body(thread, begin, end) on disjoint ranges that cover [0, units), of `grain` units each but the last,
// here and on `pool`, and returns when all are done; thread is a number below thread_count that no two calls at a
// time have in common. The caller takes ranges like any other
// thread and waits only for ranges that have been taken, so a pool that is busy, or is waiting for
// this very call, delays nothing.
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

  // Outlives this call: a helper may be scheduled after all ranges are taken. It then reads `next`
  // alone, so `body` may be gone.
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
  // Others end at about the same time, sooner than a thread that sleeps is woken.
  for (int i = 0; i < kSpins && !all_done(); ++i) pause();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, all_done);
}

}  // namespace jax_mps_neuron

#endif  // CPU_PARALLEL_H
