import { readFileSync } from 'node:fs'
import { didYouMean } from '@aphrodite/tensor'
import { cliError } from './errors.ts'
import type { Flag, FlagGroup, FlagType } from './flags.ts'

export type SettingValue = string | number | boolean | readonly string[] | readonly [number, number]
/** What was set, by flag name; what was not is absent. */
export type Settings = ReadonlyMap<string, SettingValue>

export interface Parsed {
  readonly settings: Settings
  readonly positionals: readonly string[]
}

/**
 * Variables that no flag stands for: the CUDA kernels read two themselves, when they look for cuBLASLt; a secret is nothing for a
 * command line, which everybody on the machine can see.
 */
export const FLAGLESS_VARIABLES = [
  'APHRODITE_CUBLAS',
  'APHRODITE_CUBLAS_PATH',
  'APHRODITE_INTERPRETER',
  'APHRODITE_NCCL_PATH',
  'APHRODITE_SECRET',
] as const

/**
 * Reads flags, then APHRODITE_… variables, then the file that --config names: the first that says something wins. A name that
 * `groups` does not have is an error with a suggestion; so is a value that does not fit.
 */
export async function parseSettings(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  groups: readonly FlagGroup[],
  everyFlag: readonly Flag[],
): Promise<Parsed> {
  const flags = groups.flatMap((g) => g.flags)
  const byName = new Map(flags.map((f) => [f.name, f]))
  const fromFlags = new Map<string, SettingValue>()
  const positionals = readFlags(argv, byName, fromFlags)
  const fromEnv = readEnvironment(env, byName, everyFlag)
  const file = fromFlags.get('config') ?? fromEnv.get('config')
  const fromFile = typeof file === 'string' ? await readConfigFile(file, byName, everyFlag) : new Map<string, SettingValue>()
  return { settings: new Map([...fromFile, ...fromEnv, ...fromFlags]), positionals }
}

export const variableOf = (flag: Flag): string => `APHRODITE_${flag.name.replaceAll('-', '_').toUpperCase()}`

function readFlags(argv: readonly string[], byName: ReadonlyMap<string, Flag>, into: Map<string, SettingValue>): string[] {
  const positionals: string[] = []
  const shorts = new Map([...byName.values()].flatMap((f) => (f.short ? [[f.short, f] as const] : [])))
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!
    if (arg === '--') {
      positionals.push(...argv.slice(i + 1))
      break
    }
    if (!arg.startsWith('-') || arg === '-' || /^-\d/.test(arg)) {
      positionals.push(arg)
      continue
    }
    const equals = arg.indexOf('=')
    const written = equals < 0 ? arg : arg.slice(0, equals)
    let text = equals < 0 ? undefined : arg.slice(equals + 1)
    const name = written.replace(/^--?/, '').replaceAll('_', '-')
    const negated = name.startsWith('no-') && byName.get(name.slice(3))?.type.kind === 'boolean'
    const flag = negated
      ? byName.get(name.slice(3))
      : written.startsWith('--')
        ? byName.get(name)
        : (shorts.get(name) ?? (name.length > 2 ? byName.get(name) : undefined))
    if (!flag)
      throw cliError(
        'BAD_FLAG',
        `there is no flag ${written} here.${didYouMean(name, byName.keys()).replace('"', '"--')} --help lists them.`,
      )
    if (flag.type.kind === 'boolean') {
      const value = text === undefined ? true : parseValue(flag, text, written)
      into.set(flag.name, negated ? !value : value)
      continue
    }
    if (text === undefined) {
      text = argv[++i]
      if (text === undefined || (text.startsWith('--') && text.length > 2))
        throw cliError('BAD_FLAG', `${written} needs a value: ${describe(flag.type)}`)
    }
    store(into, flag, parseValue(flag, text, written))
  }
  return positionals
}

/** Flags that repeat add up; of others the last counts. */
function store(into: Map<string, SettingValue>, flag: Flag, value: SettingValue): void {
  const before = into.get(flag.name)
  into.set(
    flag.name,
    flag.type.kind === 'list' && Array.isArray(before) ? [...(before as readonly string[]), ...(value as readonly string[])] : value,
  )
}

function readEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  byName: ReadonlyMap<string, Flag>,
  everyFlag: readonly Flag[],
): Map<string, SettingValue> {
  const found = new Map<string, SettingValue>()
  const known = new Map(everyFlag.map((f) => [variableOf(f), f]))
  const flagless = new Set<string>(FLAGLESS_VARIABLES)
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith('APHRODITE_') || text === undefined || flagless.has(name)) continue
    const flag = known.get(name)
    if (!flag)
      throw cliError(
        'BAD_FLAG',
        `the environment variable ${name} is not one of Aphrodite's.${didYouMean(name, [...known.keys(), ...flagless])}`,
      )
    if (byName.has(flag.name)) store(found, flag, parseValue(flag, text, name))
  }
  return found
}

async function readConfigFile(
  path: string,
  byName: ReadonlyMap<string, Flag>,
  everyFlag: readonly Flag[],
): Promise<Map<string, SettingValue>> {
  const bad = (message: string) => cliError('BAD_CONFIG_FILE', `${path}: ${message}`)
  const { parse: parseYaml } = await import('yaml')
  let content: unknown
  try {
    content = parseYaml(readFileSync(path, 'utf8'))
  } catch (e) {
    throw bad(e instanceof Error ? e.message.split('\n')[0]! : String(e))
  }
  const found = new Map<string, SettingValue>()
  if (content === null || content === undefined) return found
  if (typeof content !== 'object' || Array.isArray(content)) throw bad('should hold `name: value` lines')
  const known = new Map(everyFlag.map((f) => [f.name, f]))
  for (const [key, value] of Object.entries(content)) {
    const name = key.replaceAll('_', '-')
    const flag = known.get(name)
    if (!flag || name === 'config' || name === 'help') throw bad(`there is no setting "${key}".${didYouMean(name, known.keys())}`)
    if (!byName.has(name)) continue // a setting of another command
    if (Array.isArray(value)) {
      if (flag.type.kind !== 'list') throw bad(`${key} should be ${describe(flag.type)}, is a list`)
      found.set(name, value.map(String))
    } else if (value !== null && typeof value !== 'object') store(found, flag, parseValue(flag, String(value), `${path}: ${key}`))
    else throw bad(`${key} should be ${describe(flag.type)}`)
  }
  return found
}

const BYTE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  kb: 1e3,
  kib: 2 ** 10,
  m: 2 ** 20,
  mb: 1e6,
  mib: 2 ** 20,
  g: 2 ** 30,
  gb: 1e9,
  gib: 2 ** 30,
}

function parseValue(flag: Flag, text: string, where: string): SettingValue {
  const { type } = flag
  const bad = () => cliError('BAD_FLAG', `${where} should be ${describe(type)}, is "${text}"`)
  switch (type.kind) {
    case 'string':
      return text
    case 'list':
      return [text]
    case 'boolean':
      if (/^(true|1|yes|on)$/i.test(text)) return true
      if (/^(false|0|no|off)$/i.test(text)) return false
      throw bad()
    case 'count': {
      const n = Number(text)
      if (text.trim() === '' || !Number.isSafeInteger(n) || n < (type.least ?? 1)) throw bad()
      return n
    }
    case 'number': {
      const n = Number(text)
      if (text.trim() === '' || !Number.isFinite(n)) throw bad()
      return n
    }
    case 'span': {
      const m = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(text.trim())
      const [least, most] = [Number(m?.[1]), Number(m?.[2] ?? m?.[1])]
      if (!m || least < 1 || most < least) throw bad()
      return [least, most]
    }
    case 'bytes': {
      const m = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim())
      const unit = m && BYTE_UNITS[m[2]!.toLowerCase()]
      if (!m || !unit) throw bad()
      return Math.round(Number(m[1]) * unit)
    }
    case 'choice':
      if (!type.of.includes(text))
        throw cliError('BAD_FLAG', `${where} should be ${describe(type)}, is "${text}".${didYouMean(text, type.of)}`)
      return text
  }
}

export function describe(type: FlagType): string {
  switch (type.kind) {
    case 'string':
    case 'list':
      return 'a text'
    case 'boolean':
      return 'true or false'
    case 'count':
      return `a whole number of at least ${type.least ?? 1}`
    case 'number':
      return 'a number'
    case 'span':
      return 'a whole number, or two such as 100-1024'
    case 'bytes':
      return 'a size such as 512MiB or 4GiB'
    case 'choice':
      return `one of ${type.of.join(', ')}`
  }
}
