import { PackedWeight, PagedCache, Tensor } from '@aphrodite/tensor'
import { accessOf, type Operands } from './step-accesses.ts'
import type { Call } from './step-list.ts'

/** A call for people: `fusedLinear(norm, silu)`, and `out bf16 [1, 8192] ← x f32 [1, 2048], weight bf16 [16384, 2048]`. */
export interface CallText {
  readonly op: string
  readonly operands: string
}

export function textOf(call: Call): CallText {
  const { reads, writes, updates, touches } = accessOf(call)
  const results = [...named(writes), ...named(updates, '(in place)'), ...named(touches)].join(', ')
  const inputs = named(reads).join(', ')
  return { op: nameOf(call), operands: inputs ? `${results} ← ${inputs}` : results }
}

function nameOf(call: Call): string {
  switch (call.op) {
    case 'fusedLinear': {
      const { norm, residual, activation } = call.args[3]
      return withParts('fusedLinear', norm && 'norm', residual && 'residual', activation)
    }
    case 'fusedAttention':
      return withParts('fusedAttention', call.args[7].norms && 'norms', 'rotary', 'cache')
    case 'fusedRotaryWrite':
      return withParts('fusedRotaryWrite', call.args[5].norms && 'norms', 'cache')
    case 'activate':
    case 'activateAndMul':
      return withParts(call.op, call.args[2])
    case 'fill':
      return withParts('fill', String(call.args[1]))
    case 'collective':
      return call.args[0].name
    default:
      return call.op
  }
}

const withParts = (op: string, ...parts: (string | false | undefined)[]): string => `${op}(${parts.filter(Boolean).join(', ')})`

/** Numbers with their types and sizes; ids, positions and tables by their names. */
function named(operands: Operands | undefined, mark = ''): string[] {
  return Object.entries(operands ?? {}).flatMap(([name, operand]) => {
    if (operand === undefined) return []
    const label = mark ? `${name} ${mark}` : name
    if (operand instanceof Tensor && operand.dtype === 'i32') return name
    if (operand instanceof Tensor) return `${label} ${operand.dtype} [${operand.shape.join(', ')}]`
    if (operand instanceof PackedWeight) return `${label} ${operand.format} [${operand.outFeatures}, ${operand.inFeatures}]`
    if (operand instanceof PagedCache) return `${label} ${operand.shape.dtype}`
    return label
  })
}
