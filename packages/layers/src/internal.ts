/** For the packages of this repository that run a model. No part of the contract: it changes without a word. */
export * from './contract.ts'
export { createModel } from './definition.ts'
export { LAYERS_ERRORS, type LayersErrorCode, layersError } from './errors.ts'
export { cachingLayers, isCachingLayer } from './module.ts'
