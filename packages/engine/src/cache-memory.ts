import type { CacheSpec, LayerCache, PagedSpec, StateSpec } from '@aphrodite/layers'
import { Arena, type CacheDType, type Device, PAGE_TOKENS, PagedCache, product, sizeOf, type Tensor } from '@aphrodite/tensor'
import { CacheGroups } from './cache-groups.ts'
import { engineError, grouped } from './errors.ts'
import { blocksPerSequence, PagedGroup } from './paged-group.ts'
import type { MemoryLedger } from './protocol.ts'
import { StateGroup } from './state-group.ts'

/** Layers with one kind and window, and what a block (or a slot) of all of them takes. */
export interface GroupPlan {
  readonly kind: 'paged' | 'state'
  readonly window: number
  /** Their places in Step.kvCaches. */
  readonly layers: readonly number[]
  readonly blockBytes: number
}

/** Sizes that the blocks depend on. */
export interface CacheLimits {
  /** null: as many as the cache holds, up to modelLen. */
  readonly maxModelLen: number | null
  readonly modelLen: number
  readonly maxNumSeqs: number
  readonly maxNumBatchedTokens: number
  /** Where the memory is: what to raise depends on it. Default cpu. */
  readonly deviceKind?: Device['kind']
}

/** One group for each distinct kind and window, full attention first: its misses are the cheapest to find. */
export function planGroups(specs: readonly CacheSpec[], device: Device, dtype: CacheDType): GroupPlan[] {
  const found = new Map<string, { kind: 'paged' | 'state'; window: number; layers: number[]; blockBytes: number }>()
  for (const [layer, spec] of specs.entries()) {
    const window = spec.kind === 'paged' ? spec.window : 0
    const key = `${spec.kind} ${window}`
    const group = found.get(key) ?? { kind: spec.kind, window, layers: [], blockBytes: 0 }
    group.layers.push(layer)
    group.blockBytes += spec.kind === 'paged' ? device.pageBytes(pageShape(spec, dtype)) : stateBytes(spec)
    found.set(key, group)
  }
  return [...found.values()].sort((a, b) => rank(a) - rank(b))
}
const rank = (plan: GroupPlan): number => (plan.kind === 'state' ? Number.POSITIVE_INFINITY : plan.window)

/**
 * Blocks of each group, block 0 included, within `bytes`. A group that counts every token gets as many as fit; a window needs
 * no more than all sequences can look at, and never more than the former. Throws CACHE_TOO_SMALL if one sequence does not fit.
 */
export function sizeGroups(plans: readonly GroupPlan[], bytes: number, limits: CacheLimits): { blocks: number[]; maxModelLen: number } {
  const wanted = limits.maxModelLen ?? limits.modelLen
  const [where, flag] = limits.deviceKind === 'cuda' ? [' in GPU memory', '--gpu-memory-utilization'] : ['', '--memory-fraction']
  const perSequence = (plan: GroupPlan): number => blocksPerSequence(plan.window, wanted, limits.maxNumBatchedTokens)
  const bound = (plan: GroupPlan): number => (plan.kind === 'state' ? limits.maxNumSeqs + 1 : limits.maxNumSeqs * perSequence(plan) + 1)
  const blocksAt = (usable: number): number[] =>
    plans.map((plan) => (plan.kind === 'state' ? bound(plan) : Math.min(bound(plan), usable + 1)))
  const bytesAt = (usable: number): number => blocksAt(usable).reduce((sum, blocks, i) => sum + blocks * plans[i]!.blockBytes, 0)

  const paged = plans.filter((plan) => plan.kind === 'paged')
  let least = 0
  let most = paged.reduce((max, plan) => Math.max(max, bound(plan) - 1), 0)
  while (least < most) {
    const middle = Math.ceil((least + most) / 2)
    if (bytesAt(middle) <= bytes) least = middle
    else most = middle - 1
  }
  if (least === 0 && bytesAt(0) > bytes && paged.length < plans.length)
    throw engineError(
      'CACHE_TOO_SMALL',
      `the states of ${grouped(limits.maxNumSeqs)} sequences take ${grouped(bytesAt(0))} bytes, ${grouped(Math.max(0, bytes))} are left${where}. Lower --max-num-seqs or raise ${flag}.`,
    )
  // The group that needs most for one sequence decides how long it may get.
  const needed = paged.reduce((max, plan) => Math.max(max, perSequence(plan)), 0)
  if (paged.length > 0 && least < needed) {
    if (limits.maxModelLen !== null || least === 0)
      throw engineError(
        'CACHE_TOO_SMALL',
        `one sequence of ${grouped(wanted)} tokens needs ${grouped(needed)} blocks, ${grouped(least)} fit${where}. Lower --max-model-len or raise ${flag}.`,
      )
    return { blocks: blocksAt(least), maxModelLen: Math.min(wanted, least * PAGE_TOKENS) }
  }
  return { blocks: blocksAt(least), maxModelLen: wanted }
}

/** Takes the memory: groups for the scheduler, caches for the layers. */
export function allocateCaches(
  specs: readonly CacheSpec[],
  plans: readonly GroupPlan[],
  blocks: readonly number[],
  device: Device,
  dtype: CacheDType,
  limits: { readonly maxModelLen: number; readonly maxNumBatchedTokens: number; readonly enablePrefixCaching: boolean },
): { arena: Arena; groups: CacheGroups; kvCaches: LayerCache[] } {
  const arena = new Arena(device, 1)
  const kvCaches: LayerCache[] = new Array(specs.length)
  const groups = plans.map((plan, group) => {
    for (const layer of plan.layers) kvCaches[layer] = layerCache(specs[layer]!, group, blocks[group]!, arena, dtype)
    if (plan.kind === 'state') return new StateGroup(blocks[group]!)
    const most = blocksPerSequence(plan.window, limits.maxModelLen, limits.maxNumBatchedTokens)
    return new PagedGroup(plan.window, blocks[group]!, most)
  })
  return { arena, groups: new CacheGroups(groups, limits.enablePrefixCaching), kvCaches }
}

function layerCache(spec: CacheSpec, group: number, blocks: number, arena: Arena, dtype: CacheDType): LayerCache {
  if (spec.kind === 'paged') {
    const shape = pageShape(spec, dtype)
    const address = arena.reserve(blocks * arena.device.pageBytes(shape))
    return { kind: 'paged', group, pages: new PagedCache(address, shape, blocks) }
  }
  const tensors: Record<string, Tensor> = {}
  for (const [name, t] of Object.entries(spec.tensors)) tensors[name] = arena.empty([blocks, ...t.shape], t.dtype)
  return { kind: 'state', group, tensors }
}

export function ledgerOf(
  plans: readonly GroupPlan[],
  blocks: readonly number[],
  sizes: { readonly total: number; readonly weights: number; readonly workspace: number },
): MemoryLedger {
  const full = plans.findIndex((plan) => plan.kind === 'paged' && plan.window === 0)
  const counted = full >= 0 ? full : plans.findIndex((plan) => plan.kind === 'paged')
  return {
    total: sizes.total,
    weights: sizes.weights,
    workspace: sizes.workspace,
    cache: plans.reduce((sum, plan, i) => sum + plan.blockBytes * blocks[i]!, 0),
    cacheTokens: counted < 0 ? 0 : (blocks[counted]! - 1) * PAGE_TOKENS,
    groups: plans.map((plan, i) => ({
      kind: plan.kind,
      layers: plan.layers.length,
      blocks: blocks[i]! - 1,
      blockBytes: plan.blockBytes,
      window: plan.window,
    })),
  }
}

const pageShape = (spec: PagedSpec, dtype: CacheDType) => ({ kvHeads: spec.kvHeads, keyDim: spec.keyDim, valueDim: spec.valueDim, dtype })
const stateBytes = (spec: StateSpec): number => Object.values(spec.tensors).reduce((sum, t) => sum + product(t.shape) * sizeOf(t.dtype), 0)
