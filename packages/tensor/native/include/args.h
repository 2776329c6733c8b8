// Arguments of an op as they come from JavaScript: numbers. Every reader checks what it reads and throws an error that
// names the op and the argument.
//
//   context   1 number    the handle that createContext returned; always first
//   matrix    5 numbers   address, dtype, rows, columns, row stride in elements
//   vector    3 numbers   address, dtype, length
//   number    1 number
//
// The addon that includes this has a context.h with its struct Context, whose `slabs` know what memory it gave out.
#pragma once
#include <napi.h>
#include <string>
#include "context.h"
#include "dtype.h"

struct Matrix {
  char* p;
  DType dtype;
  int64_t rows, cols, stride;  // stride in elements
  char* row(int64_t i) const { return p + i * stride * sizeOf(dtype); }
  template <class T> T* as() const { return reinterpret_cast<T*>(p); }
};
struct Vector {
  char* p;
  DType dtype;
  int64_t length;
  template <class T> T* as() const { return reinterpret_cast<T*>(p); }
};

/// Throws an AphroditeError of this code.
[[noreturn]] void raise(Napi::Env env, const char* code, const std::string& message);

struct HostBytes {
  char* p;
  size_t bytes;
};

class Args {
 public:
  Args(const Napi::CallbackInfo& info, const char* op) : info_(&info), env_(info.Env()), op_(op) {
    context_ = contextOf(number("context"));
  }
  /// Of a recorded call: everything behind the context.
  Args(napi_env env, Context& context, const char* op, const double* numbers, size_t count)
      : numbers_(numbers), count_(count), env_(env), op_(op), context_(&context) {}
  Context& context() const { return *context_; }
  const char* op() const { return op_; }
  Napi::Env env() const { return env_; }

  double number(const char* name) {
    if (numbers_) {
      if (at_ >= count_) fail(name, "is missing");
      return numbers_[at_++];
    }
    double v;
    if (at_ >= info_->Length() || napi_get_value_double(env_, (*info_)[at_], &v) != napi_ok) fail(name, "should be a number");
    at_++;
    return v;
  }
  int64_t integer(const char* name, int64_t least, int64_t most) {
    double v = number(name);
    if (!(v >= double(least) && v <= double(most)) || v != double(int64_t(v))) fail(name, "is out of range");
    return int64_t(v);
  }
  float real(const char* name) { return float(number(name)); }
  bool flag(const char* name) { return integer(name, 0, 1) != 0; }

  Matrix matrix(const char* name) {
    Matrix m;
    double p = number(name);
    m.dtype = dtype(name);
    m.rows = size(name), m.cols = size(name), m.stride = size(name);
    if (m.rows > 1 && m.stride < m.cols) fail(name, "has rows that overlap");
    int64_t elements = 0;
    if (m.rows && m.cols && (__builtin_mul_overflow(m.rows - 1, m.stride, &elements) || (elements += m.cols) > kMost))
      fail(name, "is larger than any memory");
    m.p = address(name, p, m.dtype, elements);
    note(name, m.dtype, m.rows, m.cols);
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
    v.length = size(name);
    v.p = address(name, p, v.dtype, v.length);
    note(name, v.dtype, v.length, -1);
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
    Vector v{nullptr, dtype(name), size(name)};
    if (p != 0) v.p = address(name, p, v.dtype, v.length);
    return v;
  }
  /// Checks that `elements` of type t lie at p, an address from JavaScript; nullptr for none.
  char* address(const char* name, double p, DType t, int64_t elements) {
    if (elements == 0) return nullptr;
    if (!(p > 0) || p > 9007199254740991.0) fail(name, "is a null or impossible address");
    char* q = reinterpret_cast<char*>(uintptr_t(p));
    if (uintptr_t(q) % size_t(sizeOf(t))) fail(name, "is not aligned to its dtype");
    if (!context_->slabs.contains(q, size_t(elements) * size_t(sizeOf(t)))) fail(name, "lies outside the memory of this device");
    return q;
  }
  /// Checks raw bytes that an op derives from an address of its own (packed weights, caches).
  char* bytes(const char* name, int64_t count) { return address(name, number(name), DType::u8, count); }
  /// The memory of a typed array.
  HostBytes host(const char* name) {
    napi_typedarray_type type;
    size_t length;
    void* data;
    if (!info_ || at_ >= info_->Length() || napi_get_typedarray_info(env_, (*info_)[at_], &type, &length, &data, nullptr, nullptr) != napi_ok)
      fail(name, "should be a typed array");
    at_++;
    static const int kBytes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
    return {static_cast<char*>(data), length * size_t(kBytes[int(type)])};
  }
  DType dtype(const char* name) { return DType(integer(name, 0, int(DType::count) - 1)); }
  int64_t size(const char* name) { return integer(name, 0, kMost); }

  /// What was read so far, for an error that comes later: `linear(out bf16 [4, 64], x bf16 [4, 32])`.
  std::string describe() const {
    static const char* const kNames[] = {"f32", "bf16", "f16", "i32", "u8", "i8", "f8e4m3", "f8e5m2", "f64", "i64", "i16", "u16", "u32", "u64", "bool"};
    std::string text = std::string(op_) + "(";
    for (int i = 0; i < noted_; i++) {
      const Note& n = notes_[i];
      text += std::string(i ? ", " : "") + n.name + " " + kNames[int(n.dtype)] + " [" + std::to_string(n.rows);
      text += n.cols < 0 ? "]" : ", " + std::to_string(n.cols) + "]";
    }
    return text + ")";
  }
  void note(const char* name, DType t, int64_t rows, int64_t cols) {
    if (noted_ < kNotes) notes_[noted_++] = {name, t, rows, cols};
  }

  void require(bool ok, const char* message) const {
    if (!ok) raise(env(), "BAD_ARGUMENT", std::string(op_) + ": " + message);
  }
  [[noreturn]] void fail(const char* name, const char* message) const {
    raise(env(), "BAD_ARGUMENT", std::string(op_) + ": " + name + " " + message);
  }

 private:
  static constexpr int64_t kMost = int64_t(1) << 40;

  Context* contextOf(double handle) const;  // contexts.h; throws for a handle that is not alive

  const Napi::CallbackInfo* const info_ = nullptr;
  const double* const numbers_ = nullptr;
  const size_t count_ = 0;
  const napi_env env_;
  const char* const op_;
  size_t at_ = 0;
  struct Note {
    const char* name;
    DType dtype;
    int64_t rows, cols;  // cols < 0: a vector
  };
  static constexpr int kNotes = 8;
  Note notes_[kNotes];
  int noted_ = 0;
  Context* context_ = nullptr;
};
