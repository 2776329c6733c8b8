// Arguments of an op as they come from JavaScript: numbers. Every reader checks what it reads and throws a TypeError that
// names the op and the argument.
//
//   context   1 number    the handle that createContext returned; always first
//   matrix    5 numbers   address, dtype, rows, columns, row stride in elements
//   vector    3 numbers   address, dtype, length
//   number    1 number
#pragma once
#include <napi.h>
#include <cmath>
#include <string>
#include "context.h"
#include "dtype.h"

struct Matrix {
  char* p;
  DType dtype;
  int64_t rows, cols, stride;  // stride in elements
  char* row(int64_t i) const { return p + i * stride * sizeOf(dtype); }
};
struct Vector {
  char* p;
  DType dtype;
  int64_t length;
  template <class T> T* as() const { return reinterpret_cast<T*>(p); }
};

class Args {
 public:
  Args(const Napi::CallbackInfo& info, const char* op) : info_(info), op_(op) { context_ = contextOf(number("context")); }
  Context& context() const { return *context_; }
  Pool& pool() const { return context_->pool; }

  double number(const char* name) {
    if (at_ >= info_.Length() || !info_[at_].IsNumber()) fail(name, "should be a number");
    return info_[at_++].As<Napi::Number>().DoubleValue();
  }
  int64_t integer(const char* name, int64_t least, int64_t most) {
    double v = number(name);
    if (!(v >= double(least) && v <= double(most)) || v != std::floor(v)) fail(name, "is out of range");
    return int64_t(v);
  }
  float real(const char* name) { return float(number(name)); }

  Matrix matrix(const char* name) {
    Matrix m;
    double p = number(name);
    m.dtype = dtype(name);
    m.rows = integer(name, 0, kMost), m.cols = integer(name, 0, kMost), m.stride = integer(name, 0, kMost);
    if (m.rows > 1 && m.stride < m.cols) fail(name, "has rows that overlap");
    int64_t elements = m.rows && m.cols ? (m.rows - 1) * m.stride + m.cols : 0;
    m.p = address(name, p, m.dtype, elements);
    return m;
  }
  Matrix floats(const char* name) {
    Matrix m = matrix(name);
    if (!isFloat(m.dtype)) fail(name, "should be f32, f16 or bf16");
    return m;
  }
  Matrix matrixOf(const char* name, DType t) {
    Matrix m = matrix(name);
    if (m.dtype != t) fail(name, "has the wrong dtype");
    return m;
  }
  Vector vector(const char* name) {
    Vector v;
    double p = number(name);
    v.dtype = dtype(name);
    v.length = integer(name, 0, kMost);
    v.p = address(name, p, v.dtype, v.length);
    return v;
  }
  Vector vectorOf(const char* name, DType t) {
    Vector v = vector(name);
    if (v.dtype != t) fail(name, "has the wrong dtype");
    return v;
  }
  /// A vector that may be absent: address 0.
  Vector optional(const char* name) {
    double p = number(name);
    Vector v{nullptr, dtype(name), integer(name, 0, kMost)};
    if (p != 0) v.p = address(name, p, v.dtype, v.length);
    return v;
  }
  /// Checks raw bytes that an op derives from an address of its own (packed weights, caches).
  char* bytes(const char* name, int64_t count) { return address(name, number(name), DType::u8, count); }

  void require(bool ok, const char* message) const {
    if (!ok) throw Napi::TypeError::New(info_.Env(), std::string(op_) + ": " + message);
  }
  [[noreturn]] void fail(const char* name, const char* message) const {
    throw Napi::TypeError::New(info_.Env(), std::string(op_) + ": " + name + " " + message);
  }

 private:
  static constexpr int64_t kMost = int64_t(1) << 40;

  DType dtype(const char* name) { return DType(integer(name, 0, int(DType::count) - 1)); }
  char* address(const char* name, double p, DType t, int64_t elements) {
    if (elements == 0) return nullptr;
    if (!(p > 0) || p > 9007199254740991.0) fail(name, "is a null or impossible address");
    char* q = reinterpret_cast<char*>(uintptr_t(p));
    if (uintptr_t(q) % sizeOf(t)) fail(name, "is not aligned to its dtype");
    if (!context_->slabs.contains(q, size_t(elements) * sizeOf(t))) fail(name, "lies outside the memory of this device");
    return q;
  }
  Context* contextOf(double handle) const;  // context.cc; throws for a handle that is not alive

  const Napi::CallbackInfo& info_;
  const char* op_;
  size_t at_ = 0;
  Context* context_ = nullptr;
};
