// Functions of one variable on 16 lanes. Errors are in units of the last place of f32, against float64 over [-200, 200]
// (test/rows.test.ts holds them to it); nothing needs fused multiplication, so every instruction set gives the same bits.
#pragma once
#include "vec.h"

namespace KERNEL_NS {

/// (e^r - 1 - r) / r² for |r| ≤ ln 2 / 2: a Chebyshev fit, relative error of e^r 7e-10 before rounding.
INLINE F expTail(F r) {
  F q = splat(0x1.a157b2p-13f);
  q = q * r + splat(0x1.6d4926p-10f);
  q = q * r + splat(0x1.1110c4p-7f);
  q = q * r + splat(0x1.5554e4p-5f);
  q = q * r + splat(0x1.555556p-3f);
  return q * r + splat(0.5f);
}

/// x = n ln 2 + r, |x| < 2^20. ln 2 in two parts, the first with zeros at its end: n times it is exact. `sum` is n + 1.5 · 2^23:
/// its last bit is worth 1, so that adding rounded n to an integer, and its low bits are those of n.
struct Reduced { F n, r, sum; };
INLINE Reduced reduceByLn2(F x) {
  F magic = splat(0x1.8p23f);
  F sum = x * splat(0x1.715476p0f) + magic, n = sum - magic;
  return {n, (x - n * splat(0x1.62e4p-1f)) - n * splat(0x1.7f7d1cp-20f), sum};
}

/// e^x: 1 ulp. 0 below e^-87.3, where results would be denormal; e^88.37 above that; 0 for NaN (a logit that is not a number
/// has no weight).
INLINE F exp(F x) {
  Reduced d = reduceByLn2(lesser(x, splat(88.37f)));
  F e = splat(1.0f) + (d.r + d.r * d.r * expTail(d.r));
  F scaled = floatOf(bitsOf(e) + (bitsOf(d.sum) << 23));  // n onto the exponent, which stays in its range
  return select(x > splat(-87.3f), scaled, splat(0.0f));
}

/// tanh(x) = -t / (t + 2) with t = e^(-2|x|) - 1, which loses nothing near zero: 2 ulp.
INLINE F tanh(F x) {
  F a = lesser(abs(x), splat(10.0f));
  Reduced d = reduceByLn2(splat(-2.0f) * a);
  F scale = floatOf(bitsOf(splat(1.0f)) + (bitsOf(d.sum) << 23));
  F t = (d.r + d.r * d.r * expTail(d.r)) * scale + (scale - splat(1.0f));
  F y = withSign(t / (t + splat(2.0f)), x);
  return select(x == x, y, x);
}

/// 1 - erf(a) for a ≥ 0: t e^(P(t) - a²), t = 2 / (2 + a). Relative error 2e-7 near 0, growing with a² as that rounds.
INLINE F erfcPositive(F a) {
  F t = splat(2.0f) / (splat(2.0f) + a);
  F s = t * splat(2.3883495f) - splat(1.3883495f);  // [2 / 12.3, 1] onto [-1, 1]
  F p = splat(-2.3566743e-05f);
  p = p * s + splat(5.8256916e-05f);
  p = p * s + splat(1.3153884e-04f);
  p = p * s + splat(-5.5758550e-04f);
  p = p * s + splat(-2.6452731e-04f);
  p = p * s + splat(3.8065023e-03f);
  p = p * s + splat(-1.1586321e-03f);
  p = p * s + splat(-2.9882053e-02f);
  p = p * s + splat(1.6334420e-02f);
  p = p * s + splat(5.7293260e-01f);
  p = p * s + splat(-5.6137699e-01f);
  return t * exp(p - a * a);
}

/// -log(1 - v) for 0 < v < 1: 2 ulp. log(m) = 2 artanh((m - 1) / (m + 1)) for m in [1/√2, √2).
INLINE F negLog1m(F v) {
  F y = splat(1.0f) - v;
  I k = (bitsAsI(y) - splatI(0x3f3504f3)) >> 23;
  F m = floatOf(bitsAsI(y) - (k << 23));
  // Where y needs no scaling, m - 1 is -v without the rounding of 1 - v.
  F f = select(k == splatI(0), splat(0.0f) - v, m - splat(1.0f));
  F s = f / (splat(2.0f) + f), z = s * s;
  F series = splat(2.0f / 11) * z;
  series = (series + splat(2.0f / 9)) * z;
  series = (series + splat(2.0f / 7)) * z;
  series = (series + splat(2.0f / 5)) * z;
  series = (series + splat(2.0f / 3)) * z;
  F log = f - s * (f - series) ;
  return splat(0.0f) - (toFloat(k) * splat(0.6931472f) + log);
}

struct Silu {
  INLINE F of(F x) { return x / (splat(1.0f) + exp(splat(0.0f) - x)); }
};
struct Gelu {
  INLINE F of(F x) {
    F tail = splat(0.5f) * erfcPositive(abs(x) * splat(0.70710678f));  // the normal distribution beyond |x|
    F y = x * select(x > splat(0.0f), splat(1.0f) - tail, tail);
    return select(x > splat(-16.0f), y, select(x == x, splat(-0.0f), x));
  }
};
struct GeluTanh {
  INLINE F of(F x) {
    F inner = splat(0.7978845608f) * (x + splat(0.044715f) * x * x * x);
    // 1 + tanh(u) = 2 / (1 + e^(-2u)): no cancellation for negative u.
    F y = x / (splat(1.0f) + exp(splat(-2.0f) * inner));
    return y;
  }
};
struct Relu {
  INLINE F of(F x) { return select(x < splat(0.0f), splat(0.0f), x); }
};
struct Relu2 {
  INLINE F of(F x) { F y = Relu::of(x); return y * y; }
};

}  // namespace KERNEL_NS
