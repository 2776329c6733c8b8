// Where cuBLASLt is looked for; docs/gemm.md lists the places for people.
#include "cublas_lt.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <vector>

namespace {

template <class F> bool find(void* library, const char* name, F& f) {
  void* symbol = dlsym(library, name);
  memcpy(&f, &symbol, sizeof f);
  return symbol != nullptr;
}

std::vector<std::string> folders() {
  std::vector<std::string> list;
  if (const char* path = getenv("APHRODITE_CUBLAS_PATH")) list.push_back(std::string(path) + "/");
  list.push_back("");  // what the loader itself knows: LD_LIBRARY_PATH, ld.so.cache
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* path = getenv(name)) list.push_back(std::string(path) + "/lib64/");
  for (const char* path : {"/usr/local/cuda/lib64/", "/usr/local/cuda-13/lib64/", "/usr/local/cuda-12/lib64/", "/opt/cuda/lib64/",
                           "/usr/lib/x86_64-linux-gnu/", "/usr/lib/aarch64-linux-gnu/", "/usr/lib64/", "/usr/lib/wsl/lib/"})
    list.push_back(path);
  return list;
}

/// The same major version first, wherever it is.
void* openLibrary() {
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"})
    for (const std::string& folder : folders())
      if (void* library = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  return nullptr;
}

bool bind(void* library, CublasLt& f) {
  return find(library, "cublasLtCreate", f.create) && find(library, "cublasLtDestroy", f.destroy) &&
         find(library, "cublasLtMatmulDescCreate", f.operationCreate) && find(library, "cublasLtMatmulDescDestroy", f.operationDestroy) &&
         find(library, "cublasLtMatmulDescSetAttribute", f.operationSet) && find(library, "cublasLtMatrixLayoutCreate", f.layoutCreate) &&
         find(library, "cublasLtMatrixLayoutDestroy", f.layoutDestroy) && find(library, "cublasLtMatmulPreferenceCreate", f.preferenceCreate) &&
         find(library, "cublasLtMatmulPreferenceDestroy", f.preferenceDestroy) &&
         find(library, "cublasLtMatmulPreferenceSetAttribute", f.preferenceSet) &&
         find(library, "cublasLtMatmulAlgoGetHeuristic", f.heuristics) && find(library, "cublasLtMatmul", f.multiply);
}

}  // namespace

const CublasLt* openCublasLt() {
  const char* wanted = getenv("APHRODITE_CUBLAS");
  if (wanted && strcmp(wanted, "0") == 0) return nullptr;
  static CublasLt functions;
  static const bool found = [] {
    void* library = openLibrary();
    return library && bind(library, functions);
  }();
  return found ? &functions : nullptr;
}
