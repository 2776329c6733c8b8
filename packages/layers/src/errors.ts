import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/layers`. */
export const LAYERS_ERRORS = [
  'WEIGHT_SHAPE',
  'WEIGHT_NAMES',
  'WEIGHT_DTYPE',
  'BAD_CONFIG',
  'CANNOT_SHARD',
  'BAD_LAYER',
  'UNREGISTERED_LAYER',
  'MATERIALIZED_TWICE',
  'NOT_LOADED',
  'ASYNC_FORWARD',
  'STALE_TENSOR',
  'BAD_OUTPUT',
] as const
export type LayersErrorCode = (typeof LAYERS_ERRORS)[number]
export const layersError = (code: LayersErrorCode, message: string): AphroditeError => new AphroditeError(code, message)

/** A layer was used that no walk over the tree has reached. Such a layer has no path: its class, and its sizes, are its name. */
export const notMaterialized = (layer: object, sizes = ''): AphroditeError =>
  layersError(
    'UNREGISTERED_LAYER',
    `${layer.constructor.name}${sizes && ` ${sizes}`} was used without having been materialised. Was it created in forward, or is it kept where the ` +
      'tree does not see it (a #private field, a Map, a closure)? Layers are properties of modules, or in arrays that are. Or the model itself was not materialised.',
  )

export const materializedTwice = (layer: object, first: string, again: string): AphroditeError =>
  layersError(
    'MATERIALIZED_TWICE',
    `${layer.constructor.name}: it was materialised as ${first || 'the root'}, and now again as ${again || 'the root'}. ` +
      'The walk over the tree does it, once: do not call materialize of a layer that is in the tree, nor put one into two models.',
  )
