import { endOfRegistering } from '@aphrodite/llm'
import { AphroditeError, didYouMean } from '@aphrodite/tensor'
import type { Command } from './command.ts'
import { benchCommand } from './commands/bench.ts'
import { chatCommand } from './commands/chat.ts'
import { doctorCommand } from './commands/doctor.ts'
import { generateCommand } from './commands/generate.ts'
import { inspectCommand } from './commands/inspect.ts'
import { runCommand } from './commands/run.ts'
import { verifyCommand } from './commands/verify.ts'
import { cliError } from './errors.ts'
import { GENERAL } from './flags.ts'
import { commandHelp, overview } from './help.ts'
import { parseSettings } from './settings.ts'
import { RankEnded } from './start-model.ts'

export const COMMANDS: readonly Command[] = [
  runCommand,
  chatCommand,
  generateCommand,
  benchCommand,
  inspectCommand,
  verifyCommand,
  doctorCommand,
]

/** Every flag of every command, once: what a variable or a config file may name. */
export const EVERY_FLAG = [
  ...new Map([GENERAL, ...COMMANDS.flatMap((c) => c.groups)].flatMap((g) => g.flags.map((f) => [f.name, f]))).values(),
]

/**
 * What `aphrodite …` does, for a program that wraps it: registers its models, then calls `run(process.argv)`, whole or without the
 * first two. Resolves with the exit status; what was refused on purpose has been printed then. The engine's thread and other ranks
 * run such a program once more, for its registrations, and it ends there where it calls this.
 */
export async function run(argv: readonly string[], env: Readonly<Record<string, string | undefined>> = process.env): Promise<number> {
  await endOfRegistering()
  try {
    return await runCommandLine(argv[0] === process.execPath ? argv.slice(2) : argv, env)
  } catch (error) {
    if (error instanceof RankEnded) return 0
    if (!(error instanceof AphroditeError)) throw error
    console.error(`aphrodite: ${error.code}: ${error.message}`)
    return 1
  }
}

/** For a wrapper's last line: runs, and sets the exit status. */
export async function main(argv: readonly string[] = process.argv): Promise<void> {
  try {
    process.exitCode = await run(argv)
  } catch (error) {
    console.error(error)
    process.exitCode = 1
  }
}

async function runCommandLine([name, ...rest]: readonly string[], env: Readonly<Record<string, string | undefined>>): Promise<number> {
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    console.log(overview(COMMANDS))
    return name === undefined ? 2 : 0
  }
  const command = COMMANDS.find((c) => c.name === name)
  if (!command) {
    throw cliError(
      'BAD_COMMAND',
      `there is no command "${name}".${didYouMean(
        name,
        COMMANDS.map((c) => c.name),
      )} aphrodite --help lists them.`,
    )
  }
  if (rest.includes('--help') || rest.includes('-h')) {
    console.log(commandHelp(command))
    return 0
  }
  return command.run(await parseSettings(rest, env, [...command.groups, GENERAL], EVERY_FLAG))
}
