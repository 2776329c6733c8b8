import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/layers`. */
export const LAYERS_ERRORS = ['WEIGHT_SHAPE', 'WEIGHT_NAMES', 'WEIGHT_DTYPE', 'BAD_CONFIG', 'CANNOT_SHARD', 'BAD_LAYER'] as const
export type LayersErrorCode = (typeof LAYERS_ERRORS)[number]
export const layersError = (code: LayersErrorCode, message: string): AphroditeError => new AphroditeError(code, message)
