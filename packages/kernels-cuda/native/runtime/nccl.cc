// Where NCCL is looked for; docs/guides/gpu.md lists the places for people.
#include "nccl.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <mutex>
#include <vector>

namespace {

constexpr const char* kName = "libnccl.so.2";

std::vector<std::string> folders() {
  std::vector<std::string> list;
  if (const char* path = getenv("APHRODITE_NCCL_PATH")) list.push_back(std::string(path) + "/");
  list.push_back("");  // what the loader itself knows: LD_LIBRARY_PATH, ld.so.cache
  for (const char* name : {"NCCL_HOME", "CUDA_HOME", "CUDA_PATH"})
    if (const char* path = getenv(name))
      for (const char* folder : {"/lib/", "/lib64/"}) list.push_back(std::string(path) + folder);
  for (const char* path : {"/usr/local/cuda/lib64/", "/usr/local/lib/", "/usr/lib/x86_64-linux-gnu/", "/usr/lib/aarch64-linux-gnu/", "/usr/lib64/"})
    list.push_back(path);
  return list;
}

template <class F> bool find(void* library, const char* name, F& f) {
  void* symbol = dlsym(library, name);
  memcpy(&f, &symbol, sizeof f);
  return symbol != nullptr;
}

bool bind(void* library, Nccl& f) {
  return find(library, "ncclGetVersion", f.getVersion) && find(library, "ncclGetUniqueId", f.getUniqueId) &&
         find(library, "ncclCommInitRankConfig", f.commInitRankConfig) && find(library, "ncclCommGetAsyncError", f.commGetAsyncError) &&
         find(library, "ncclCommDestroy", f.commDestroy) && find(library, "ncclCommAbort", f.commAbort) &&
         find(library, "ncclAllReduce", f.allReduce) && find(library, "ncclAllGather", f.allGather) &&
         find(library, "ncclGetErrorString", f.getErrorString) && find(library, "ncclGetLastError", f.getLastError);
}

std::string text(int version) { return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100); }

}  // namespace

const Nccl* openNccl(std::string& reason) {
  // One for the process, like the library itself; a failed search is made again, since the variable may be set meanwhile.
  static std::mutex mutex;
  static Nccl functions;
  static bool found = false;
  std::lock_guard<std::mutex> lock(mutex);
  if (found) return &functions;
  void* library = nullptr;
  std::string why;
  for (const std::string& folder : folders()) {
    if ((library = dlopen((folder + kName).c_str(), RTLD_NOW | RTLD_LOCAL))) break;
    const char* error = dlerror();
    if (why.empty() && error) why = error;
  }
  if (!library) return reason = std::string(kName) + " is not found (" + why + ")", nullptr;
  if (!bind(library, functions)) return reason = std::string(kName) + " lacks functions: it is older than " + text(Nccl::kLeastVersion), nullptr;
  functions.getVersion(&functions.version);
  if (functions.version < Nccl::kLeastVersion)
    return reason = std::string(kName) + " is version " + text(functions.version) + "; " + text(Nccl::kLeastVersion) + " is the oldest that serves", nullptr;
  found = true;
  return &functions;
}
