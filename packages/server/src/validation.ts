import type { FastifySchemaCompiler } from 'fastify'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { ApiError } from './api-error.ts'

type Schema = Readonly<Record<string, unknown>>

/**
 * Checks by TypeBox's compiled code. What it turns down is looked through once more, up to the first thing wrong: TypeBox's own
 * list of errors tries every branch of every union, which for a large body takes seconds.
 */
export const validatorCompiler: FastifySchemaCompiler<TSchema> = ({ schema }) => {
  const check = Compile(schema)
  return (value: unknown) =>
    check.Check(value)
      ? { value }
      : { error: firstProblem(schema, value) ?? new ApiError(400, 'invalid_value', 'The body is not what this endpoint takes.') }
}

/**
 * One sentence about the first thing wrong with a value, naming the field as `messages[0].content`. Where the schema is a
 * choice of types, what is said is the choice (`x-expected`) and not why each of them failed.
 */
export const firstProblem = (schema: TSchema, value: unknown): ApiError | undefined => find(schema as unknown as Schema, value, '', null)

function find(schema: Schema, value: unknown, name: string, param: string | null): ApiError | undefined {
  const wrong = (code: string, should: string) =>
    new ApiError(400, code, `${name === '' ? 'The body' : name} should ${should}, is ${shown(value)}.`, { param })

  const choices = schema['anyOf'] as Schema[] | undefined
  if (choices) {
    if (choices.some((choice) => find(choice, value, name, param) === undefined)) return undefined
    return wrong('invalid_value', `be ${schema['x-expected'] ?? 'one of several types'}`)
  }
  if (Array.isArray(schema['enum']) && !schema['enum'].includes(value)) {
    return wrong('invalid_value', `be one of ${schema['enum'].map((v) => JSON.stringify(v)).join(', ')}`)
  }
  if ('const' in schema && schema['const'] !== value) return wrong('invalid_value', `be ${JSON.stringify(schema['const'])}`)
  const type = schema['type'] as string | undefined
  if (type !== undefined && !isOf(type, value)) return wrong('invalid_type', `be ${TYPES[type] ?? type}`)

  const limit = (keyword: string): number => (schema[keyword] as number | undefined) ?? Number.NaN
  const said = (keyword: string): string => limit(keyword).toLocaleString('en-US')
  if (typeof value === 'number') {
    if (value < limit('minimum')) return wrong('invalid_value', `be at least ${said('minimum')}`)
    if (value <= limit('exclusiveMinimum')) return wrong('invalid_value', `be above ${said('exclusiveMinimum')}`)
    if (value > limit('maximum')) return wrong('invalid_value', `be at most ${said('maximum')}`)
  }
  if (typeof value === 'string') {
    if (value.length < limit('minLength')) return wrong('invalid_value', `have at least ${counted(limit('minLength'), 'character')}`)
    if (characters(value) > limit('maxLength')) return wrong('invalid_value', `have at most ${counted(limit('maxLength'), 'character')}`)
  }
  if (type === 'array') return findInList(schema, value as unknown[], name, param, wrong)
  if (type === 'object') return findInObject(schema, value as Record<string, unknown>, name, param)
  return undefined
}

function findInList(
  schema: Schema,
  list: readonly unknown[],
  name: string,
  param: string | null,
  wrong: (code: string, should: string) => ApiError,
): ApiError | undefined {
  const { minItems = 0, maxItems = Number.POSITIVE_INFINITY, items } = schema as { minItems?: number; maxItems?: number; items?: Schema }
  if (list.length < minItems) return wrong('invalid_value', `have at least ${counted(minItems, 'item')}`)
  if (list.length > maxItems) return wrong('invalid_value', `have at most ${counted(maxItems, 'item')}`)
  if (!items) return undefined
  for (let i = 0; i < list.length; i++) {
    const problem = find(items, list[i], `${name}[${i}]`, param)
    if (problem) return problem
  }
  return undefined
}

function findInObject(schema: Schema, object: Record<string, unknown>, name: string, param: string | null): ApiError | undefined {
  const properties = (schema['properties'] ?? {}) as Record<string, Schema>
  const inside = (key: string): string => (name === '' ? key : `${name}.${key.slice(0, 100)}`)
  for (const key of (schema['required'] ?? []) as string[]) {
    if (object[key] === undefined) {
      return new ApiError(400, 'missing_required_parameter', `${inside(key)} is missing.`, { param: param ?? key })
    }
  }
  const others = schema['additionalProperties'] as Schema | boolean | undefined
  const pattern = Object.values((schema['patternProperties'] ?? {}) as Record<string, Schema>)[0]
  for (const key in object) {
    const own = Object.hasOwn(properties, key) ? properties[key] : (pattern ?? others)
    if (own === false) return new ApiError(400, 'unknown_parameter', `There is no field ${inside(key)}.`, { param: param ?? key })
    if (object[key] === undefined || typeof own !== 'object') continue
    const problem = find(own, object[key], inside(key), param ?? key)
    if (problem) return problem
  }
  return undefined
}

const TYPES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  integer: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  null: 'null',
}

function isOf(type: string, value: unknown): boolean {
  switch (type) {
    case 'number':
      return Number.isFinite(value)
    case 'integer':
      return Number.isInteger(value)
    case 'array':
      return Array.isArray(value)
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value)
    case 'null':
      return value === null
    default:
      return typeof value === type
  }
}

const counted = (count: number, noun: string): string => `${count.toLocaleString('en-US')} ${noun}${count === 1 ? '' : 's'}`

/** At least as many as TypeBox counts, which are graphemes: code points. */
const characters = (text: string): number => (text.length > 4096 ? text.length : [...text].length)

/** A value in few characters, whatever its size: a list of a million items is not written out. */
function shown(value: unknown): string {
  if (value === undefined) return 'missing'
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : `a list of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value)
}
