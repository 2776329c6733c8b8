// Row-major out = x · wᵀ is column-major outᵀ [n, m] = wᵀᵀ · xᵀ: A is w seen as [k, n] and transposed, B is x seen as [k, m].
#include "blas.h"
#include <string.h>
#include <map>
#include "cublas_lt.h"

namespace {

CublasLt::DataType dataType(DType t) { return t == DType::f32 ? CublasLt::r32F : t == DType::bf16 ? CublasLt::r16BF : CublasLt::r16F; }

/// What an algorithm is chosen by. Batches are grouped: four sizes in each doubling.
struct Shape {
  int64_t n, k, m;
  DType type, outType, biasType;
  bool bias;
  bool operator<(const Shape& o) const { return memcmp(key().v, o.key().v, sizeof(Key)) < 0; }

 private:
  struct Key {
    int64_t v[4];
  };
  Key key() const { return {{n, k, m, int64_t(type) | int64_t(outType) << 8 | int64_t(biasType) << 16 | int64_t(bias) << 24}}; }
};

int64_t bucket(int64_t m) {
  if (m <= 8) return m;
  int64_t step = 2;
  while (step * 8 < m) step *= 2;
  return (m + step - 1) / step * step;
}

struct Choice {
  bool usable;
  CublasLt::Algorithm algorithm;
};

/// Operation and layouts of one product; destroyed with it.
struct Problem {
  const CublasLt& f;
  CublasLt::Operation operation = nullptr;
  CublasLt::Layout a = nullptr, b = nullptr, d = nullptr;
  bool good;

  Problem(const CublasLt& f, const LinearCall& call, int64_t m) : f(f) {
    const CublasLt::DataType in = dataType(call.w.format), out = dataType(call.outType);
    const int32_t t = CublasLt::transpose, n = CublasLt::none;
    good = f.operationCreate(&operation, CublasLt::compute32F, CublasLt::r32F) == 0 && set(CublasLt::transA, t) && set(CublasLt::transB, n) &&
           f.layoutCreate(&a, in, uint64_t(call.w.k), uint64_t(call.w.n), call.w.kp()) == 0 &&
           f.layoutCreate(&b, in, uint64_t(call.w.k), uint64_t(m), call.m == 1 ? call.w.kp() : call.xStride) == 0 &&
           f.layoutCreate(&d, out, uint64_t(call.w.n), uint64_t(m), call.m == 1 ? call.w.n : call.outStride) == 0;
    if (call.bias && good) {
      const uint32_t e = CublasLt::epilogueBias;
      const int32_t type = dataType(call.biasType);
      good = set(CublasLt::epilogue, e) && set(CublasLt::biasType, type) && set(CublasLt::biasPointer, call.bias);
    }
  }
  ~Problem() {
    if (operation) f.operationDestroy(operation);
    for (auto layout : {a, b, d})
      if (layout) f.layoutDestroy(layout);
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

 private:
  template <class T> bool set(CublasLt::OperationAttribute name, const T& v) { return f.operationSet(operation, name, &v, sizeof v) == 0; }
};

class BlasLt final : public Blas {
 public:
  explicit BlasLt(const CublasLt& f) : f_(f) {
    if (f_.create(&handle_) != 0) handle_ = nullptr;
    if (!handle_ || f_.preferenceCreate(&preference_) != 0) return;
    const uint64_t workspace = kBlasWorkspace;
    const uint32_t wAlignment = 256, alignment = 16, schemes = CublasLt::reduceSums;
    good_ = prefer(CublasLt::maxWorkspaceBytes, workspace) && prefer(CublasLt::reductionSchemes, schemes) &&
            prefer(CublasLt::alignmentA, wAlignment) && prefer(CublasLt::alignmentB, alignment) &&
            prefer(CublasLt::alignmentC, alignment) && prefer(CublasLt::alignmentD, alignment);
  }
  ~BlasLt() override {
    if (preference_) f_.preferenceDestroy(preference_);
    if (handle_) f_.destroy(handle_);
  }
  bool good() const { return good_; }

  bool multiply(Context& c, const LinearCall& call) override {
    if (!fits(call)) return false;
    const Shape shape{call.w.n, call.w.k, bucket(call.m), call.w.format, call.outType, call.biasType, call.bias != nullptr};
    auto known = choices_.find(shape);
    if (known == choices_.end()) known = choices_.emplace(shape, choose(call, shape.m)).first;
    Choice& choice = known->second;
    if (!choice.usable) return false;
    Problem problem(f_, call, call.m);
    if (!problem.good) return false;
    if (start(c, call, problem, choice.algorithm)) return true;
    // What suits the group's largest batch may not suit this one: ask for exactly this one.
    const Choice exact = choose(call, call.m);
    if (exact.usable && start(c, call, problem, exact.algorithm)) return true;
    choice.usable = false;
    return false;
  }

 private:
  template <class T> bool prefer(CublasLt::PreferenceAttribute name, const T& v) { return f_.preferenceSet(preference_, name, &v, sizeof v) == 0; }

  static bool fits(const LinearCall& a) {
    const bool types = a.xType == a.w.format && (a.outType == a.w.format || a.outType == DType::f32);
    const bool bias = !a.bias || (a.biasType == a.outType && uintptr_t(a.bias) % 16 == 0);
    return types && bias && uintptr_t(a.x) % 16 == 0 && a.xStride * sizeOf(a.xType) % 16 == 0 && uintptr_t(a.out) % 16 == 0;
  }

  Choice choose(const LinearCall& call, int64_t m) {
    Problem problem(f_, call, m);
    CublasLt::Heuristic result;
    int found = 0;
    if (!problem.good || f_.heuristics(handle_, problem.operation, problem.a, problem.b, problem.d, problem.d, preference_, 1, &result, &found) != 0 ||
        found == 0 || result.status != 0)
      return {false, {}};
    return {true, result.algorithm};
  }

  bool start(Context& c, const LinearCall& call, const Problem& p, const CublasLt::Algorithm& algorithm) {
    const float one = 1, zero = 0;
    return f_.multiply(handle_, p.operation, &one, call.w.p, p.a, call.x, p.b, &zero, call.out, p.d, call.out, p.d, &algorithm, c.scratch, kBlasWorkspace,
                       c.stream) == 0;
  }

  const CublasLt& f_;
  CublasLt::Handle handle_ = nullptr;
  CublasLt::Preference preference_ = nullptr;
  bool good_ = false;
  std::map<Shape, Choice> choices_;
};

}  // namespace

std::unique_ptr<Blas> openBlas(const Context&) {
  const CublasLt* functions = openCublasLt();
  if (!functions) return nullptr;
  auto blas = std::make_unique<BlasLt>(*functions);
  if (!blas->good()) return nullptr;
  return blas;
}
