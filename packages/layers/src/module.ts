import type { Arena, Communicator, Device, FloatDType } from '@aphrodite/tensor'
import type { CacheSpec } from './cache.ts'
import type { Quantization } from './quantization/method.ts'
import type { WeightMap } from './weights.ts'

/** Given once, when a model is materialised: everything a layer may know about where it runs. */
export interface Env {
  readonly device: Device
  readonly arena: Arena
  readonly tp: Communicator
  /** The type of activations and of weights that are not quantised. */
  readonly dtype: FloatDType
  readonly quantization: Quantization
  /** No sequence gets longer than this here: tables by position need no more rows. Left out: as long as the model can. */
  readonly maxModelLen?: number
}

/** A node of the model tree. Property names are checkpoint names: `selfAttn.oProj` is `self_attn.o_proj`. */
export abstract class Module {
  *children(): Iterable<[name: string, child: Module]> {
    for (const [key, value] of Object.entries(this)) {
      if (value instanceof Module) yield [snakeCase(key), value]
      else if (Array.isArray(value)) for (const [i, v] of value.entries()) if (v instanceof Module) yield [`${snakeCase(key)}.${i}`, v]
    }
  }
}

/** A leaf: it declares its parameters, and receives them. */
export abstract class Layer extends Module {
  abstract materialize(path: string, env: Env, weights: WeightMap): void
}

/** A layer that remembers something between steps. The engine sets `cacheIndex`: its place in `Step.kvCaches`. */
export interface CachingLayer extends Layer {
  cacheIndex: number
  /** After materialize: what it needs on this rank. */
  cacheSpec(): CacheSpec
}

export const isCachingLayer = (m: Module): m is CachingLayer => m instanceof Layer && 'cacheSpec' in m && 'cacheIndex' in m

/** Every module below root, each once, in tree order: a shared module belongs to the first path that reaches it. */
export function* walk(root: Module): Generator<[path: string, module: Module]> {
  const seen = new Set<Module>()
  function* visit(node: Module, path: string): Generator<[string, Module]> {
    if (seen.has(node)) return
    seen.add(node)
    yield [path, node]
    for (const [name, child] of node.children()) yield* visit(child, path ? `${path}.${name}` : name)
  }
  yield* visit(root, '')
}

/** The layers that declare a cache, in tree order; numbers them. */
export function cachingLayers(root: Module): CachingLayer[] {
  const found: CachingLayer[] = []
  for (const [, m] of walk(root)) {
    if (isCachingLayer(m)) {
      m.cacheIndex = found.length
      found.push(m)
    }
  }
  return found
}

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)
