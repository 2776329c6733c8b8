import { type Device, type Kernels, Tensor } from '@aphrodite/tensor'
import { layersError } from './errors.ts'
import type { CausalLM } from './model.ts'
import { Layer, Module, walk } from './module.ts'
import type { Step } from './step.ts'

/*
 * What a model promises, and no type can hold it to. It is looked at when a model is materialised and in the dry run that
 * measures an engine's workspace, with the same code that serves; later steps are not slowed down by it.
 */

/** Throws UNREGISTERED_LAYER for a layer that no path leads to, ASYNC_FORWARD for a method that would return a promise. */
export function checkTree(root: Module): void {
  const seen = new Map<Module, string>()
  for (const [path, module] of walk(root)) seen.set(module, path)
  for (const [module, path] of seen) {
    for (const method of ['forward', 'logits', 'materialize', 'loadWeights'] as const)
      if (isAsync((module as unknown as Record<string, unknown>)[method])) throw asyncMethod(nameOf(module, path), method)
    for (const [key, value] of Object.entries(module)) {
      const hidden = findHidden(value, seen, 4)
      if (hidden) throw hidden(nameOf(module, path), key)
    }
  }
}

type Complaint = (owner: string, key: string) => Error

function findHidden(value: unknown, seen: ReadonlyMap<Module, string>, depth: number): Complaint | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (value instanceof Module) {
    if (seen.has(value)) return undefined
    return (owner, key) =>
      layersError(
        'UNREGISTERED_LAYER',
        `${owner}: ${key} holds a ${value.constructor.name} where the tree does not see it. Keep modules in properties and in arrays that are properties, or override children().`,
      )
  }
  if (looksLikeLayer(value))
    return (owner, key) =>
      layersError(
        'UNREGISTERED_LAYER',
        `${owner}: ${key} is a ${value.constructor.name} of another copy of @aphrodite/layers. A model package has it as a peer dependency, so that there is one.`,
      )
  if (depth === 0) return undefined
  for (const inner of insides(value)) {
    const hidden = findHidden(inner, seen, depth - 1)
    if (hidden) return hidden
  }
  return undefined
}

function insides(value: object): Iterable<unknown> {
  if (Array.isArray(value) || value instanceof Set) return value
  if (value instanceof Map) return value.values()
  const prototype = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null ? Object.values(value) : []
}

const looksLikeLayer = (x: object): boolean =>
  !(x instanceof Module) && 'materialize' in x && 'children' in x && typeof x.materialize === 'function'

const isAsync = (fn: unknown): boolean => Object.prototype.toString.call(fn) === '[object AsyncFunction]'

const asyncMethod = (owner: string, method: string): Error =>
  layersError('ASYNC_FORWARD', `${owner}: ${method} is asynchronous. It only enqueues, and returns at once: it has nothing to await.`)

const nameOf = (module: Module, path: string): string => (path ? `${path} (${module.constructor.name})` : module.constructor.name)

/** `model.forward(step)`. Throws ASYNC_FORWARD, and BAD_OUTPUT where it returns no live [tokens, hidden]. */
export function checkedForward(model: CausalLM, step: Step): Tensor {
  const hidden = outputOf(model, 'forward', model.forward(step), 'the hidden states, [tokens, hidden]')
  const tokens = step.inputIds.dim(0)
  if (hidden.shape.length !== 2 || hidden.dim(0) !== tokens)
    throw badOutput(model, 'forward', `[${hidden.shape}] for ${tokens} tokens; it should be [${tokens}, hidden]`)
  return hidden
}

/** `model.logits(hidden, step)`. Throws ASYNC_FORWARD, and BAD_OUTPUT where it returns no live f32 [logitRows, vocabSize]. */
export function checkedLogits(model: CausalLM, hidden: Tensor, step: Step): Tensor {
  const logits = outputOf(model, 'logits', model.logits(hidden, step), 'f32 [logitRows, vocabSize]')
  const rows = step.logitRows.dim(0)
  if (logits.dtype !== 'f32' || logits.shape.length !== 2 || logits.dim(0) !== rows || logits.dim(1) !== model.vocabSize)
    throw badOutput(
      model,
      'logits',
      `${logits.dtype} [${logits.shape}] for ${rows} rows; it should be f32 [${rows}, ${model.vocabSize}], as vocabSize says`,
    )
  return logits
}

function outputOf(model: CausalLM, method: string, output: unknown, wanted: string): Tensor {
  if (output instanceof Promise) {
    output.catch(() => {}) // what became of it is not the mistake to report
    throw asyncMethod(model.constructor.name, method)
  }
  if (!(output instanceof Tensor)) {
    const what = output === null || typeof output !== 'object' ? String(output) : `a ${output.constructor?.name}`
    throw badOutput(model, method, `${what}; it should return ${wanted}`)
  }
  if (!output.block.live) throw stale(`${model.constructor.name}.${method} returned`, output)
  return output
}

const badOutput = (model: CausalLM, method: string, message: string): Error =>
  layersError('BAD_OUTPUT', `${model.constructor.name}.${method} returned ${message}.`)

/** After a step, when its workspace was reset. Throws STALE_TENSOR for a module that has kept a tensor of it in a property. */
export function checkNothingKept(root: Module): void {
  for (const [path, module] of walk(root))
    for (const [key, value] of Object.entries(module))
      if (value instanceof Tensor && !value.block.live) throw stale(`${nameOf(module, path)} keeps in ${key}`, value)
}

/**
 * The same device, except that an op with a tensor whose memory was given back (by a reset, a tidy, a release) throws
 * STALE_TENSOR: what lies there is somebody else's by then. For dry runs and tests.
 */
export function watchedDevice(device: Device): Device {
  const kernels = watched(device.kernels, (name, kernel) => (...args: unknown[]) => {
    for (const arg of args) for (const t of tensorsIn(arg)) if (!t.block.live) throw stale(`${name} was given${whose()}`, t)
    return kernel(...args)
  }) as Kernels
  const own = watched(device, (_, method) => method)
  return new Proxy(device, { get: (_, name) => (name === 'kernels' ? kernels : own[name as keyof Device]) })
}

type Fn = (...args: unknown[]) => unknown

/** An object whose methods, wrapped, are called on the object itself, which may have private fields. */
function watched<T extends object>(target: T, wrap: (name: string, method: Fn) => Fn): T {
  const wrapped = new Map<PropertyKey, Fn>()
  return new Proxy(target, {
    get(object, name) {
      const value = object[name as keyof T]
      if (typeof value !== 'function') return value
      const known = wrapped.get(name)
      if (known) return known
      const fn = wrap(String(name), (...args) => (value as Fn).apply(object, args))
      wrapped.set(name, fn)
      return fn
    },
  })
}

function* tensorsIn(arg: unknown): Iterable<Tensor> {
  if (arg instanceof Tensor) yield arg
  else if (typeof arg === 'object' && arg !== null && !ArrayBuffer.isView(arg) && !(arg instanceof Layer))
    for (const value of Object.values(arg)) if (value instanceof Tensor) yield value
}

const stale = (what: string, { dtype, shape }: Tensor): Error =>
  layersError(
    'STALE_TENSOR',
    `${what} a tensor ${dtype} [${shape}] whose memory was given back. A step's tensors are gone when it ends, and those of a tidy when it returns, ` +
      'except what it returns. What is to last is allocated from env.arena in materialize.',
  )

/** The classes whose methods are being run, from the inside outwards: a private field has no path to name it by. */
function whose(): string {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 30
  const frames = new Error().stack ?? ''
  Error.stackTraceLimit = limit
  const methods = [...frames.matchAll(/ at (\w+\.(?:forward|logits|heads|apply|addTo|inPlace)) /g)].map((m) => m[1]!)
  return methods.length ? `, in ${methods.slice(0, 4).join(' in ')},` : ''
}
