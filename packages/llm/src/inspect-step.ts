import { CudaDevice, type StepTrace, StepTracer } from '@aphrodite/kernels-cuda'
import type { CacheSpec, CausalLM, LayerCache, Step } from '@aphrodite/layers'
import { cachingLayers } from '@aphrodite/layers/internal'
import { readConfig, resolveModel } from '@aphrodite/loader'
import { Arena, type CacheDType, type Device, PAGE_TOKENS, PagedCache, type Tensor, Workspace } from '@aphrodite/tensor'
import { openDevice } from './devices.ts'
import { chooseCacheDType, chooseDType, DTYPE_NAME } from './dtype.ts'
import { llmError } from './errors.ts'
import { buildModel, describeModel } from './model-loading.ts'
import { resolveOptions } from './options.ts'
import { rankToMeasure } from './ranks/communicator.ts'
import { applyRegistrations, collectRegistrations } from './registrations.ts'
import type { LLMOptions } from './types.ts'

export interface StepShape {
  /** Sequences of the step. Default 1. */
  readonly batch?: number
  /** Tokens of each, the new one included. Default 256, or the model's most. */
  readonly context?: number
}

export interface StepReport extends StepTrace {
  readonly folder: string
  readonly device: string
  readonly dtype: string
  readonly batch: number
  readonly context: number
}

/** Beyond it nothing changes but numbers. */
const MOST_SEQUENCES = 4096

/**
 * The ops of a decode step as the model enqueues them, and as a GPU does them. From config.json alone: no weights are read, and
 * where there is no GPU its kernels are assumed. Throws BAD_OPTION, and what goes wrong on the way to a model.
 */
export async function inspectStep(given: LLMOptions, { batch = 1, ...shape }: StepShape = {}): Promise<StepReport> {
  const options = resolveOptions(given)
  const folder = await resolveModel(options.model, options.revision === undefined ? {} : { revision: options.revision })
  await applyRegistrations(collectRegistrations(options.plugins))
  const described = await describeModel(readConfig(folder))
  const { config, quantization } = described
  const model = buildModel(described)
  const context = shape.context ?? Math.min(256, model.maxModelLen)
  if (!(batch >= 1 && batch <= MOST_SEQUENCES))
    throw llmError('BAD_OPTION', `batch is ${batch}; a step can be shown of 1 to ${MOST_SEQUENCES} sequences.`)
  if (!(context >= 1 && context <= model.maxModelLen))
    throw llmError('BAD_OPTION', `context is ${context}; the model goes from 1 to ${model.maxModelLen} tokens.`)
  const dtype = chooseDType(options.dtype, config.json, 'cuda')
  const gpu = openGpu(options)
  try {
    const tracer = new StepTracer(gpu)
    const arena = new Arena(tracer.device)
    model.materialize({
      device: tracer.device,
      arena,
      tp: rankToMeasure(options.tensorParallelSize),
      dtype,
      quantization,
      maxModelLen: context,
    })
    const trace = tracer.trace(decodeStep(model, tracer.device, arena, chooseCacheDType(options.kvCacheDtype, dtype), batch, context))
    return { ...trace, folder, device: (gpu ?? tracer.device).description, dtype: DTYPE_NAME[dtype], batch, context }
  } finally {
    gpu?.close()
  }
}

/** Undefined where there is none, or none is wanted: the step is one of a GPU all the same. */
function openGpu(options: Parameters<typeof openDevice>[0]): CudaDevice | undefined {
  if (options.device === 'cpu') return undefined
  const device = openDevice({ ...options, device: options.device === 'cuda' ? 'auto' : options.device, pinThreads: false }, () => {})
  if (device instanceof CudaDevice) return device
  device.close()
  return undefined
}

/** What a captured decode step enqueues: tokens of the step before in, tokens out. */
function decodeStep(model: CausalLM, device: Device, arena: Arena, dtype: CacheDType, batch: number, context: number): () => void {
  const workspace = new Workspace(device, 2 ** 45)
  const ints = (...shape: number[]): Tensor => workspace.empty(shape, 'i32')
  const floats = (): Tensor => workspace.empty([batch], 'f32')
  const columns = Math.ceil(context / PAGE_TOKENS)
  const specs = cachingLayers(model).map((layer) => layer.cacheSpec())
  const groups = [...new Set(specs.map(groupOf))]
  const [queryStarts, contextLengths] = [ints(batch + 1), ints(batch)]
  const step: Step = {
    inputIds: ints(batch),
    positions: ints(batch),
    promptLengths: ints(batch),
    logitRows: ints(batch),
    workspace,
    kvCaches: specs.map((spec) => cacheOf(spec, groups.indexOf(groupOf(spec)), arena, dtype, batch, columns)),
    attnMetadata: groups.map((group) =>
      group === 'state'
        ? { kind: 'state', slots: ints(batch), fresh: ints(batch), queryStarts }
        : {
            kind: 'paged',
            slots: ints(batch),
            queryStarts,
            contextLengths,
            pageTables: ints(batch, columns),
            maxQueryLength: 1,
            maxContextLength: columns * PAGE_TOKENS,
          },
    ),
  }
  const lastTokens = arena.empty([batch], 'i32')
  const sources = ints(batch)
  const sampling = { temperature: floats(), topK: ints(batch), topP: floats(), minP: floats(), seeds: ints(batch, 3) }
  return () => {
    const { kernels } = device
    kernels.feedTokens(step.inputIds, lastTokens, sources)
    const logits = workspace.tidy(workspace.empty([1], 'i32'), () => model.logits(model.forward(step), step))
    kernels.sample(lastTokens, logits, sampling)
    workspace.reset()
  }
}

const groupOf = (spec: CacheSpec): string => (spec.kind === 'state' ? 'state' : `paged ${spec.window}`)

function cacheOf(spec: CacheSpec, group: number, arena: Arena, dtype: CacheDType, batch: number, columns: number): LayerCache {
  if (spec.kind === 'state') {
    const tensors = Object.entries(spec.tensors).map(([name, t]) => [name, arena.empty([batch, ...t.shape], t.dtype)] as const)
    return { kind: 'state', group, tensors: Object.fromEntries(tensors) }
  }
  const shape = { kvHeads: spec.kvHeads, keyDim: spec.keyDim, valueDim: spec.valueDim, dtype }
  const pages = batch * columns + 1
  return { kind: 'paged', group, pages: new PagedCache(arena.reserve(pages * arena.device.pageBytes(shape)), shape, pages) }
}
