/** Element types that a tensor or a checkpoint may have. The names are the storage formats, not the precision of arithmetic. */
export type DType =
  | 'f64'
  | 'f32'
  | 'f16'
  | 'bf16'
  | 'f8e4m3'
  | 'f8e5m2'
  | 'i64'
  | 'i32'
  | 'i16'
  | 'i8'
  | 'u64'
  | 'u32'
  | 'u16'
  | 'u8'
  | 'bool'

/** The types that activations and dense weights are computed in. */
export type FloatDType = 'f32' | 'f16' | 'bf16'

/** The types that keys and values may be kept in. 8-bit floats take the greatest finite value for what is beyond it. */
export type CacheDType = FloatDType | 'f8e4m3' | 'f8e5m2'

const BYTES: Readonly<Record<DType, number>> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  f8e4m3: 1,
  f8e5m2: 1,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u64: 8,
  u32: 4,
  u16: 2,
  u8: 1,
  bool: 1,
}

/** Bytes of one element. */
export const sizeOf = (dtype: DType): number => BYTES[dtype]

/** The number by which a dtype crosses into native code; `native/include/dtype.h` has the same table. */
export const DTYPE_CODE: Readonly<Record<DType, number>> = {
  f32: 0,
  bf16: 1,
  f16: 2,
  i32: 3,
  u8: 4,
  i8: 5,
  f8e4m3: 6,
  f8e5m2: 7,
  f64: 8,
  i64: 9,
  i16: 10,
  u16: 11,
  u32: 12,
  u64: 13,
  bool: 14,
}

export const isFloat = (dtype: DType): dtype is FloatDType => dtype === 'f32' || dtype === 'f16' || dtype === 'bf16'

export const CACHE_DTYPES: readonly CacheDType[] = ['f32', 'f16', 'bf16', 'f8e4m3', 'f8e5m2']
