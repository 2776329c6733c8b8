import { didYouMean } from '@aphrodite/tensor'
import { tokenizerError } from './errors.ts'

/** A JSON object whose fields are read with checks; errors name the place, such as `tokenizer.json: pre_tokenizer.pattern`. */
export class JsonNode {
  readonly fields: Readonly<Record<string, unknown>>
  readonly path: string

  constructor(value: unknown, path: string) {
    if (value === null || typeof value !== 'object' || Array.isArray(value)) throw bad(path, `must be an object, not ${kind(value)}`)
    this.fields = value as Record<string, unknown>
    this.path = path
  }

  has(key: string): boolean {
    return Object.hasOwn(this.fields, key) && this.fields[key] !== null
  }

  get(key: string): unknown {
    return Object.hasOwn(this.fields, key) ? this.fields[key] : undefined
  }

  at(key: string): string {
    return `${this.path}.${key}`
  }

  node(key: string): JsonNode {
    return new JsonNode(this.get(key), this.at(key))
  }

  nodes(key: string): JsonNode[] {
    return this.array(key).map((value, i) => new JsonNode(value, `${this.at(key)}[${i}]`))
  }

  array(key: string): readonly unknown[] {
    const value = this.get(key)
    if (!Array.isArray(value)) throw bad(this.at(key), `must be a list, not ${kind(value)}`)
    return value
  }

  string(key: string, fallback?: string): string {
    const value = this.get(key) ?? fallback
    if (typeof value !== 'string') throw bad(this.at(key), `must be a string, not ${kind(value)}`)
    return value
  }

  /** One character (a code point). */
  char(key: string): string {
    const value = this.string(key)
    if ([...value].length !== 1) throw bad(this.at(key), `must be one character, not ${JSON.stringify(value)}`)
    return value
  }

  optionalString(key: string): string | undefined {
    return this.has(key) ? this.string(key) : undefined
  }

  boolean(key: string, fallback?: boolean): boolean {
    const value = this.get(key) ?? fallback
    if (typeof value !== 'boolean') throw bad(this.at(key), `must be true or false, not ${kind(value)}`)
    return value
  }

  integer(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback
    if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > 2 ** 31 - 1)
      throw bad(this.at(key), `must be an integer from 0 to 2^31 - 1, not ${kind(value)}`)
    return value as number
  }

  oneOf<T extends string>(key: string, choices: readonly T[], fallback?: T): T {
    const value = this.string(key, fallback)
    const found = choices.find((choice) => choice === value)
    if (found === undefined)
      throw bad(this.at(key), `is ${JSON.stringify(value)}; known are ${choices.join(', ')}.${didYouMean(value, choices)}`)
    return found
  }
}

/** Looks a component's `type` up in a table of makers. */
export function component<T>(node: JsonNode, makers: Readonly<Record<string, (node: JsonNode) => T>>): T {
  const type = node.string('type')
  const make = Object.hasOwn(makers, type) ? makers[type] : undefined
  if (!make)
    throw bad(
      node.at('type'),
      `is ${JSON.stringify(type)}; known are ${Object.keys(makers).join(', ')}.${didYouMean(type, Object.keys(makers))}`,
    )
  return make(node)
}

export function bad(path: string, problem: string, cause?: unknown) {
  return tokenizerError('BAD_TOKENIZER', `${path} ${problem}`, cause === undefined ? undefined : { cause })
}

function kind(value: unknown): string {
  if (value === undefined) return 'missing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'an object'
  const text = JSON.stringify(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
