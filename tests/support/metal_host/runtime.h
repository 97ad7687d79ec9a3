// Runs a kernel's grid on the host. Each thread of a threadgroup is a fiber that runs until it meets a
// barrier or returns; the order in which they run is chosen by the caller, since a kernel without a race gives
// the same result in any.

#pragma once

#include <cstddef>
#include <cstdint>

namespace shim {

struct Position {
  uint32_t x, y, z;
};

const Position& current_group();
const Position& current_thread();

// Waits until every thread of the group has come here. Aborts the launch if some have returned instead.
void barrier();

// The group's array of that line of the source: the same for all of its threads, NaN in every float until
// it is written.
void* threadgroup_memory(int line, size_t bytes);

}  // namespace shim

extern "C" {
// Runs `kernel` on every threadgroup of the grid. order: 0 ascending, 1 descending, otherwise the seed of
// a new permutation at every barrier. Returns 0, or 1 for a barrier that not all threads reached.
int shim_launch(void (*kernel)(void* const*), void* const* buffers, const uint32_t* grid,
                const uint32_t* threads, uint64_t order);
}
