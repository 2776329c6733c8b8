import type { FastifySchemaValidationError } from 'fastify'
import { ApiError } from './api-error.ts'

type Schema = Readonly<Record<string, unknown>>

/**
 * One sentence about the first thing wrong with a body, naming the field as `messages[0].content`. Where the schema is a
 * choice of types, what is said is the choice (`x-expected`) and not why each of them failed.
 */
export function validationError(errors: readonly FastifySchemaValidationError[], schema: Schema, body: unknown): ApiError {
  const first = errors[0]
  if (!first) return new ApiError(400, 'invalid_value', 'The body is not what this endpoint takes.')
  const path =
    first.instancePath === ''
      ? []
      : first.instancePath
          .slice(1)
          .split('/')
          .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
  let node: Schema | undefined = schema
  let value = body
  let name = ''
  for (const [depth, part] of path.entries()) {
    if (node?.['x-expected'] !== undefined) break
    const isIndex = Array.isArray(value)
    name += isIndex ? `[${part}]` : depth === 0 ? part : `.${part}`
    value = (value as Record<string, unknown> | undefined)?.[part]
    node = isIndex
      ? (node?.['items'] as Schema | undefined)
      : ((node?.['properties'] as Record<string, Schema> | undefined)?.[part] ?? firstPattern(node))
  }
  const param = path[0] ?? null
  if (node?.['x-expected'] !== undefined) {
    return new ApiError(400, 'invalid_value', `${name} should be ${node['x-expected']}, is ${shown(value)}.`, { param })
  }
  if (first.keyword === 'required') {
    const missing = (first.params['requiredProperties'] as string[])[0] ?? ''
    const whole = name === '' ? missing : `${name}.${missing}`
    return new ApiError(400, 'missing_required_parameter', `${whole} is missing.`, { param: param ?? missing })
  }
  // A property that `additionalProperties: false` shuts out.
  if (first.keyword === 'boolean') return new ApiError(400, 'unknown_parameter', `There is no field ${name}.`, { param })
  return new ApiError(400, codeOf(first.keyword), `${name || 'The body'} ${should(first)}, is ${shown(value)}.`, { param })
}

const codeOf = (keyword: string): string => (keyword === 'type' ? 'invalid_type' : 'invalid_value')

const firstPattern = (node: Schema | undefined): Schema | undefined =>
  Object.values((node?.['patternProperties'] as Record<string, Schema> | undefined) ?? {})[0]

function should({ keyword, params, message }: FastifySchemaValidationError): string {
  const limit = typeof params['limit'] === 'number' ? params['limit'].toLocaleString('en-US') : String(params['limit'])
  switch (keyword) {
    case 'type':
      return `should be ${article([params['type']].flat().join(' or '))}`
    case 'minimum':
      return `should be at least ${limit}`
    case 'exclusiveMinimum':
      return `should be above ${limit}`
    case 'maximum':
      return `should be at most ${limit}`
    case 'minItems':
      return `should have at least ${limit} item${limit === '1' ? '' : 's'}`
    case 'maxItems':
      return `should have at most ${limit} items`
    case 'minLength':
      return `should have at least ${limit} character${limit === '1' ? '' : 's'}`
    case 'maxLength':
      return `should have at most ${limit} characters`
    case 'enum':
      return `should be one of ${(params['allowedValues'] as unknown[]).map((v) => JSON.stringify(v)).join(', ')}`
    case 'const':
      return `should be ${JSON.stringify(params['allowedValue'])}`
    default:
      return message ?? 'cannot be used'
  }
}

const article = (type: string): string => {
  const word = type === 'integer' ? 'whole number' : type === 'array' ? 'list' : type === 'boolean' ? 'true or false' : type
  return type === 'boolean' ? word : `${/^[aeio]/.test(word) ? 'an' : 'a'} ${word}`
}

/** A value in few characters, whatever its size: a list of a million items is not written out. */
function shown(value: unknown): string {
  if (value === undefined) return 'missing'
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : `a list of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value)
}
