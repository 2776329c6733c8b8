import { layersError } from './errors.ts'

/** config.json, parsed. */
export type ConfigJson = Readonly<Record<string, unknown>>

/** config.json with types: every read names its key, its type and its default, and a wrong one is an error that names the file. */
export class ConfigReader {
  readonly json: ConfigJson
  readonly #where: string
  constructor(json: ConfigJson, where = 'config.json') {
    this.json = json
    this.#where = where
  }

  number(key: string, fallback?: number): number {
    return this.#read(key, 'number', fallback) as number
  }
  boolean(key: string, fallback?: boolean): boolean {
    return this.#read(key, 'boolean', fallback) as boolean
  }
  string(key: string, fallback?: string): string {
    return this.#read(key, 'string', fallback) as string
  }
  /** null counts as absent. */
  has(key: string): boolean {
    return this.json[key] !== undefined && this.json[key] !== null
  }

  /** Written down as null, which is not the same as left out where a family's default is something else. */
  isNull(key: string): boolean {
    return this.json[key] === null
  }

  /** A count: a whole number from `least` to `most`. A limit that no model comes near keeps a broken file from asking for the world. */
  count(key: string, fallback?: number, { least = 1, most = 2 ** 31 - 1 }: { least?: number; most?: number } = {}): number {
    const n = this.number(key, fallback)
    if (!Number.isSafeInteger(n) || n < least) throw this.error(`${key} should be a whole number of at least ${least}, is ${n}`)
    if (n > most) throw this.error(`${key} should be at most ${most}, is ${n}`)
    return n
  }

  /** An object inside; undefined when absent. */
  object(key: string): ConfigReader | undefined {
    if (!this.has(key)) return undefined
    const value = this.json[key]
    if (typeof value !== 'object' || Array.isArray(value)) throw this.error(`${key} should be an object, is ${JSON.stringify(value)}`)
    return new ConfigReader(value as ConfigJson, `${this.#where}: ${key}`)
  }

  /** An array of numbers or of strings; undefined when absent. */
  list<T extends 'number' | 'string'>(key: string, type: T): (T extends 'number' ? number : string)[] | undefined {
    if (!this.has(key)) return undefined
    const value = this.json[key]
    if (!Array.isArray(value) || value.some((v) => typeof v !== type)) throw this.error(`${key} should be a list of ${type}s`)
    return value as (T extends 'number' ? number : string)[]
  }

  /** The file must say one of these, or nothing. */
  require(key: string, ...supported: readonly unknown[]): void {
    if (this.has(key) && !supported.includes(this.json[key])) {
      throw this.error(
        `${key} is ${JSON.stringify(this.json[key])}; this model supports only ${supported.map((s) => JSON.stringify(s)).join(' and ')}`,
      )
    }
  }

  error(message: string): Error {
    return layersError('BAD_CONFIG', `${this.#where}: ${message}`)
  }

  #read(key: string, type: 'number' | 'boolean' | 'string', fallback: unknown): unknown {
    const value = this.has(key) ? this.json[key] : fallback
    if (value === undefined) throw this.error(`${key} is missing; it should be a ${type}`)
    if (typeof value !== type || (type === 'number' && !Number.isFinite(value)))
      throw this.error(`${key} should be a ${type}, is ${JSON.stringify(value)}`)
    return value
  }
}
