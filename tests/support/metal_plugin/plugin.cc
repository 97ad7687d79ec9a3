// A PJRT plugin whose platform is METAL and whose device is the CPU: the table of another plugin
// (PLUGIN_LIBRARY), with another name. With WITHOUT_CUSTOM_CALLS it behaves as Apple's jax-metal 0.1.1 does:
// no FFI extension, and no program with a custom call compiles.

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

#include "pjrt_c_api.h"

namespace {

constexpr char kPlatform[] = "METAL";
const PJRT_Api* inner = nullptr;

PJRT_Error* platform_name(PJRT_Client_PlatformName_Args* args) {
  args->platform_name = kPlatform;
  args->platform_name_size = sizeof(kPlatform) - 1;
  return nullptr;
}

#ifdef WITHOUT_CUSTOM_CALLS

// Errors of this file, beside those of the inner plugin.
std::set<const void*>& own_errors() {
  static std::set<const void*> errors;
  return errors;
}

PJRT_Error* error(const std::string& message) {
  auto* own = new std::string(message);
  own_errors().insert(own);
  return reinterpret_cast<PJRT_Error*>(own);
}

void destroy_error(PJRT_Error_Destroy_Args* args) {
  if (!own_errors().erase(args->error)) return inner->PJRT_Error_Destroy(args);
  delete reinterpret_cast<std::string*>(args->error);
}

void error_message(PJRT_Error_Message_Args* args) {
  if (!own_errors().count(args->error)) return inner->PJRT_Error_Message(args);
  auto* own = reinterpret_cast<const std::string*>(args->error);
  args->message = own->data();
  args->message_size = own->size();
}

PJRT_Error* error_code(PJRT_Error_GetCode_Args* args) {
  if (!own_errors().count(args->error)) return inner->PJRT_Error_GetCode(args);
  args->code = PJRT_Error_Code_INTERNAL;
  return nullptr;
}

// Writes the targets of a program's custom calls, and returns how many bytes that took. Python has
// StableHLO's own parser.
size_t (*custom_call_targets)(const char* program, size_t size, char* targets, size_t capacity) = nullptr;

PJRT_Error* compile(PJRT_Client_Compile_Args* args) {
  if (!custom_call_targets) return error("nobody reads the programs' custom calls");
  char text[4096];
  const size_t size =
      custom_call_targets(args->program->code, args->program->code_size, text, sizeof(text));
  const std::string targets(text, size);
  for (size_t begin = 0; begin < targets.size();) {
    const size_t end = targets.find('\n', begin);
    const std::string target = targets.substr(begin, end - begin);
    if (target != "Sharding") {
      return error("failed to legalize operation 'mhlo.custom_call': " + target);
    }
    begin = end + 1;
  }
  return inner->PJRT_Client_Compile(args);
}

// The extensions that have nothing to do with custom calls or with another way to compile.
PJRT_Extension_Base* plain_extensions(const PJRT_Extension_Base* from) {
  PJRT_Extension_Base* list = nullptr;
  for (; from; from = from->next) {
    if (from->type != PJRT_Extension_Type_Layouts && from->type != PJRT_Extension_Type_MemoryDescriptions) {
      continue;
    }
    auto* copy = static_cast<PJRT_Extension_Base*>(std::malloc(from->struct_size));
    std::memcpy(copy, from, from->struct_size);
    copy->next = list;
    list = copy;
  }
  return list;
}

#endif

PJRT_Api table() {
  void* library = dlopen(PLUGIN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  auto get = library ? reinterpret_cast<const PJRT_Api* (*)()>(dlsym(library, "GetPjrtApi")) : nullptr;
  inner = get ? get() : nullptr;
  PJRT_Api api = {};
  // Another version may have other fields in the structs above.
  if (!inner || inner->pjrt_api_version.major_version != PJRT_API_MAJOR ||
      inner->pjrt_api_version.minor_version != PJRT_API_MINOR) {
    return api;
  }
  api = *inner;
  api.PJRT_Client_PlatformName = platform_name;
#ifdef WITHOUT_CUSTOM_CALLS
  api.extension_start = plain_extensions(inner->extension_start);
  api.PJRT_Error_Destroy = destroy_error;
  api.PJRT_Error_Message = error_message;
  api.PJRT_Error_GetCode = error_code;
  api.PJRT_Client_Compile = compile;
#endif
  return api;
}

}  // namespace

extern "C" {

// Null if the inner plugin is not what this was built for.
const PJRT_Api* GetPjrtApi() {
  static const PJRT_Api api = table();
  return api.struct_size ? &api : nullptr;
}

#ifdef WITHOUT_CUSTOM_CALLS
void read_custom_calls_with(size_t (*function)(const char*, size_t, char*, size_t)) {
  custom_call_targets = function;
}
#endif

}  // extern "C"
