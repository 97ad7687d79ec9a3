#include "isa.h"

#include <atomic>
#include <cstring>

#if defined(__x86_64__) && defined(KERNELS_X86)
#include <cpuid.h>

// Whether the CPU converts halves. Not every compiler's __builtin_cpu_supports knows "f16c".
static bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

#define INSTRUCTION_SETS(X)                                                                        \
  X(avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&             \
                __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&        \
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))               \
  X(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())           \
  X(baseline, true)
#elif defined(__aarch64__)
#define INSTRUCTION_SETS(X) X(neon, true)
#else
#define INSTRUCTION_SETS(X) X(baseline, true)
#endif

namespace jax_mps_neuron {

#define DECLARE(isa, supported)                                         \
  namespace isa##_float32 { extern const KernelTable table; }           \
  namespace isa##_float16 { extern const KernelTable table; }           \
  namespace isa##_bfloat16 { extern const KernelTable table; }          \
  namespace isa##_float64 { extern const KernelTable table; }
INSTRUCTION_SETS(DECLARE)

namespace {

struct InstructionSet {
  const char* name;
  const Kernels* tables[kStorages];  // indexed by Storage
};

// The instruction sets that this CPU has, newest first, then one with a null name.
const InstructionSet* instruction_sets() {
  static const auto* sets = [] {
    static InstructionSet found[4] = {};
    int n = 0;
#define FIND(isa, supported)                                                               \
    if (supported)                                                                         \
      found[n++] = {#isa, {isa##_float32::table, isa##_float16::table,                     \
                           isa##_bfloat16::table, isa##_float64::table}};
    INSTRUCTION_SETS(FIND)
    return found;
  }();
  return sets;
}

std::atomic<const InstructionSet*>& current() {
  static std::atomic<const InstructionSet*> set{instruction_sets()};
  return set;
}

}  // namespace

const Kernels& kernels(Storage storage, int neuron_type) {
  return current().load(std::memory_order_relaxed)->tables[static_cast<int>(storage)][position_of(neuron_type)];
}

}  // namespace jax_mps_neuron

const char* jmn_isa(int i) { return jax_mps_neuron::instruction_sets()[i].name; }

const char* jmn_current_isa() { return jax_mps_neuron::current().load()->name; }

int jmn_use_isa(const char* name) {
  for (auto* set = jax_mps_neuron::instruction_sets(); set->name; ++set) {
    if (std::strcmp(set->name, name) == 0) {
      jax_mps_neuron::current() = set;
      return 0;
    }
  }
  return 1;
}
