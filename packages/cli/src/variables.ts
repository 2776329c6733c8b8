import { EVERY_FLAG } from './run.ts'
import { FLAGLESS_VARIABLES, variableOf } from './settings.ts'

/** The names of all environment variables that Aphrodite reads. */
export const everyVariable = (): string[] => [...EVERY_FLAG.filter((f) => f.name !== 'help').map(variableOf), ...FLAGLESS_VARIABLES]
