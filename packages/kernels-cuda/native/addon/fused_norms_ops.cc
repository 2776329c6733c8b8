// Two norms around a sum, as one op.
#include "fused_norms.h"
#include "op.h"

namespace {

/// out, residual, x: matrices; weight, eps and offset of the norm of x; weight, eps and offset of the norm of the sum
NormPair pairOf(Args& a) {
  Matrix out = a.floats("out"), residual = a.floats("residual"), x = a.floats("x");
  NormPair p{};
  Vector first = a.vectorOf("first", out.dtype);
  p.firstEps = a.real("firstEps"), p.firstOffset = a.real("firstOffset");
  Vector second = a.vectorOf("second", out.dtype);
  p.secondEps = a.real("secondEps"), p.secondOffset = a.real("secondOffset");
  a.require(x.dtype == out.dtype, "x should have the dtype of out");
  a.require(residual.dtype == DType::f32 || residual.dtype == out.dtype, "residual should be f32 or have the dtype of out");
  for (const Matrix* m : {&residual, &x}) a.require(m->rows == out.rows && m->cols == out.cols, "out, residual and x should have one shape");
  a.require(first.length == out.cols && second.length == out.cols, "first and second should have a number for each column");
  p.rows = out.rows, p.n = out.cols, p.t = out.dtype, p.sum = residual.dtype;
  p.out = {out.p, out.stride}, p.residual = {residual.p, residual.stride}, p.x = {x.p, x.stride};
  p.first = first.p, p.second = second.p;
  return p;
}

void FusedNorms(Args& a) {
  const NormPair p = pairOf(a);
  a.require(p.rows == 0 || normPairFits(p), "rows should be whole 16-byte vectors, of at most 16,384 elements (8,192 of f32)");
  normPair(a.context(), p);
}

}  // namespace

void InitFusedNorms(Napi::Env env, Napi::Object exports) { add<FusedNorms>(env, exports, "fusedNorms"); }
