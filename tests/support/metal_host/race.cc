// Launches one kernel under ThreadSanitizer, whose process it has to be:
//   race KERNEL GRID_X,Y,Z THREADS_X,Y,Z CONSTANTS_IN_HEX BUFFER_BYTES...
// The buffers hold floats of 1; the constants are the last.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime.h"

namespace {

void three(const char* text, uint32_t* to) { sscanf(text, "%u,%u,%u", to, to + 1, to + 2); }

}  // namespace

int main(int count, char** arguments) {
  if (count < 5) return 2;
  auto kernel = reinterpret_cast<void (*)(void* const*)>(dlsym(RTLD_DEFAULT, arguments[1]));
  if (kernel == nullptr) return 3;
  uint32_t grid[3], threads[3];
  three(arguments[2], grid);
  three(arguments[3], threads);
  const std::string hex = arguments[4];
  std::vector<char> constants;
  for (size_t i = 0; i < hex.size(); i += 2) {
    constants.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  std::vector<std::vector<float>> memory;
  std::vector<void*> buffers;
  for (int i = 5; i < count; ++i) {
    memory.emplace_back(std::atoll(arguments[i]) / sizeof(float) + 1, 1.0f);
    buffers.push_back(memory.back().data());
  }
  buffers.push_back(constants.data());
  // Without destructors: nothing orders them with the threads of the kernel.
  std::_Exit(shim_launch(kernel, buffers.data(), grid, threads, 0));
}
