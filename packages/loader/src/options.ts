import { didYouMean } from '@aphrodite/tensor'
import { loaderError } from './errors.ts'

/** Defaults with what was given put over them. `known`: every name there is; any other is an error with a suggestion. */
export function withDefaults<T extends object>(what: string, defaults: T, known: readonly string[], given: object): T {
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) {
      throw loaderError(
        'LOADER_OPTION',
        `${what} has no option "${key.slice(0, 80)}".${didYouMean(key, known)} It takes ${known.join(', ')}.`,
      )
    }
  }
  return { ...defaults, ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) }
}
