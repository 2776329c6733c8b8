import type { Device, Tensor } from '@aphrodite/tensor'
import { createReferenceDevice } from '../reference/device.ts'
import type { OpCase, Tolerance } from './case.ts'
import { CaseMemory } from './memory.ts'

export interface OpCaseResult {
  /** The largest error as a part of what the tolerance allows there: above 1 the case failed. */
  readonly worst: number
  /** Where and how, for people; undefined when it passed. */
  readonly failure: string | undefined
}

/** A case ready to be called on a device, as often as a measurement wants. */
export interface PreparedCase {
  readonly run: () => void
  readonly memory: CaseMemory
}

/** Puts the inputs of a case on a device. */
export function prepareOpCase(opCase: OpCase, device: Device): PreparedCase {
  const memory = new CaseMemory(device, seedOf(opCase.name))
  return { run: opCase.prepare(memory, device), memory }
}

/** Runs a case on a device and gives all that it wrote, with the gaps between rows that it must not write. */
export function outputsOf(opCase: OpCase, device: Device): Downloaded[] {
  const { run, memory } = prepareOpCase(opCase, device)
  try {
    run()
    return memory.outputs.map(({ whole }) => device.download(whole))
  } finally {
    memory.release()
  }
}

/** Runs a case on a device and compares its outputs with those of the reference device: `outputsOf`, where they are kept. */
export function runOpCase(opCase: OpCase, device: Device, expected = outputsOf(opCase, createReferenceDevice())): OpCaseResult {
  const { run, memory } = prepareOpCase(opCase, device)
  try {
    run()
    let result: OpCaseResult = { worst: 0, failure: undefined }
    memory.outputs.forEach(({ name, whole }, i) => {
      const found = compare(name, device.download(whole), expected[i]!, whole, opCase.tolerance)
      if (found.worst >= result.worst) result = found
    })
    return result
  } finally {
    memory.release()
  }
}

export type Downloaded = Float32Array | Int32Array | Uint8Array

function compare(name: string, ours: Downloaded, theirs: Downloaded, tensor: Tensor, tolerance: Tolerance): OpCaseResult {
  const exact = !(ours instanceof Float32Array)
  let squares = 0
  let finite = 0
  for (const v of theirs) {
    if (!Number.isFinite(v)) continue
    squares += v * v
    finite++
  }
  const slack = exact ? 0 : tolerance.ofRms * Math.sqrt(squares / Math.max(finite, 1))
  let worst = 0
  let at = -1
  for (let i = 0; i < theirs.length; i++) {
    const [a, b] = [ours[i]!, theirs[i]!]
    if (Object.is(a, b) || a === b) continue
    const error = Math.abs(a - b)
    const allowed = exact ? 0 : tolerance.relative * Math.abs(b) + slack
    // NaN, an infinity that should not be one, or any error where none is allowed.
    const part = allowed > 0 && error < Number.POSITIVE_INFINITY ? error / allowed : Number.POSITIVE_INFINITY
    if (part > worst) {
      worst = part
      at = i
    }
  }
  if (worst <= 1) return { worst, failure: undefined }
  const place = `${name}[${Math.floor(at / tensor.lastDim)}, ${at % tensor.lastDim}] of [${tensor.shape}]`
  return { worst, failure: `${place} is ${ours[at]}, the reference has ${theirs[at]}: ${worst.toPrecision(3)} times what is allowed` }
}

/** FNV-1a: a case has the same inputs wherever it stands in the table. */
function seedOf(name: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
