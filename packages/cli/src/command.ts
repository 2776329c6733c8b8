import type { FlagGroup } from './flags.ts'
import type { Settings } from './settings.ts'

export interface CommandInput {
  readonly settings: Settings
  readonly positionals: readonly string[]
}

/** One word after `aphrodite`. `run` resolves with the exit status. */
export interface Command {
  readonly name: string
  /** `run MODEL` */
  readonly usage: string
  readonly summary: string
  readonly groups: readonly FlagGroup[]
  run(input: CommandInput): Promise<number>
}
