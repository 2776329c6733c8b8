import type { CacheSpec, CausalLM, LayerCache } from '@aphrodite/layers'
import { checkedForward, checkedLogits, checkNothingKept, watchedDevice } from '@aphrodite/layers/internal'
import { type CacheDType, type Device, measuringDevice, PagedCache, Workspace } from '@aphrodite/tensor'
import { BatchBuilder, withLogitRows } from './batch.ts'
import { CacheGroups, PageTable } from './cache-groups.ts'
import type { GroupPlan } from './cache-memory.ts'
import { blocksFor, PagedGroup } from './paged-group.ts'
import { resolveSamplingParams } from './resolve-params.ts'
import { samplingPlan } from './sampling-plan.ts'
import { Request, Sequence } from './sequence.ts'
import { StateGroup } from './state-group.ts'

/** The largest batches that there can be. */
export interface DryRunLimits {
  readonly maxModelLen: number
  readonly maxNumSeqs: number
  readonly maxNumBatchedTokens: number
  readonly chunkRows: number
  /** What the sampler takes beside logits. */
  readonly samplerBytes: number
}

/**
 * How many bytes of workspace a step takes at most: the model's own forward, run at the largest batches on a device that
 * gives out addresses and computes nothing. It is where a model that breaks its contract is told so: two steps, and what the first
 * leaves behind is looked at.
 */
export function measureWorkspace(
  model: CausalLM,
  specs: readonly CacheSpec[],
  plans: readonly GroupPlan[],
  device: Device,
  dtype: CacheDType,
  limits: DryRunLimits,
): number {
  const measuring = watchedDevice(measuringDevice(device))
  const groups = new CacheGroups(
    plans.map((plan) => (plan.kind === 'state' ? new StateGroup(2) : new PagedGroup(plan.window, 2, 1))),
    false,
  )
  const nowhere = new Workspace(measuring, 2 ** 40)
  const kvCaches = specs.map((spec, layer): LayerCache => {
    const group = plans.findIndex((plan) => plan.layers.includes(layer))
    if (spec.kind === 'state') {
      const tensors = Object.entries(spec.tensors).map(([name, t]) => [name, nowhere.empty([2, ...t.shape], t.dtype)] as const)
      return { kind: 'state', group, tensors: Object.fromEntries(tensors) }
    }
    const shape = { kvHeads: spec.kvHeads, keyDim: spec.keyDim, valueDim: spec.valueDim, dtype }
    return { kind: 'paged', group, pages: new PagedCache(nowhere.empty([1], 'u8').address, shape, 2) }
  })

  const builder = new BatchBuilder(measuring, groups.groups, kvCaches, limits.maxModelLen)
  const tokens = limits.maxNumBatchedTokens
  const sequences = Math.min(limits.maxNumSeqs, tokens)
  const longest = Math.min(tokens, limits.maxModelLen)
  const nothing = { tokens: new Int32Array(limits.maxModelLen), pages: new Int32Array(blocksFor(limits.maxModelLen)) }
  let peak = 0
  // All seats taken, with prompts cut into what is left; and one prompt alone.
  for (const batch of [spread(sequences, tokens, limits.maxModelLen), [longest]]) {
    const workspace = new Workspace(measuring, 2 ** 45)
    const sequencesOf = batch.map((scheduled) => dummy(scheduled, groups, nothing))
    const { step } = builder.build(sequencesOf, sequencesOf, workspace)
    const hidden = checkedForward(model, step)
    workspace.empty([limits.samplerBytes], 'u8')
    const rows = Math.min(limits.chunkRows, Math.max(longest, sequences))
    checkedLogits(model, hidden, withLogitRows(step, workspace.empty([rows], 'i32')))
    peak = Math.max(peak, workspace.peakBytes)
    workspace.reset()
    checkNothingKept(model)
  }
  // Batches between these pack their holes a little differently.
  return peak + Math.ceil(peak / 8) + (1 << 16)
}

function spread(sequences: number, tokens: number, maxModelLen: number): number[] {
  const each = Math.floor(tokens / sequences)
  return Array.from({ length: sequences }, (_, i) => Math.min(maxModelLen, i === 0 ? tokens - each * (sequences - 1) : each))
}

/** A sequence at the end of the longest context, which holds page 0 everywhere. Hundreds of them share their arrays. */
function dummy(scheduled: number, groups: CacheGroups, { tokens, pages }: Record<'tokens' | 'pages', Int32Array<ArrayBuffer>>): Sequence {
  const request = new Request({
    id: '',
    prompt: new Int32Array(1),
    plan: samplingPlan(resolveSamplingParams(), [], 1),
    priority: 0,
    arrival: 0,
    seed: 0,
    rootName: '',
    logits: undefined,
    mostTokens: Number.POSITIVE_INFINITY,
  })
  const sequence = new Sequence(request, 0, groups.open())
  sequence.tokens = tokens
  sequence.length = sequence.known = tokens.length
  sequence.computed = tokens.length - scheduled
  sequence.scheduled = scheduled
  for (const table of sequence.tables) {
    if (!(table instanceof PageTable)) continue
    table.pages = pages
    table.count = pages.length
  }
  return sequence
}
