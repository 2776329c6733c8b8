import type { Command } from './command.ts'
import { type Flag, GENERAL } from './flags.ts'

/** The help of one command, its flags in groups. */
export function commandHelp(command: Command): string {
  const lines = [`aphrodite ${command.usage}`, '', command.summary, '']
  for (const group of [...command.groups, GENERAL]) {
    lines.push(`${group.title}:`)
    for (const flag of group.flags) lines.push(flagLine(flag))
    lines.push('')
  }
  lines.push('Every flag is also an environment variable (APHRODITE_MAX_MODEL_LEN) and a key of a --config file (max-model-len:).')
  return lines.join('\n')
}

export function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map((c) => c.usage.length)) + 2
  return [
    'aphrodite COMMAND …',
    '',
    ...commands.map((c) => `  ${c.usage.padEnd(width)}${c.summary}`),
    '',
    'aphrodite COMMAND --help lists the flags of a command.',
  ].join('\n')
}

function flagLine({ name, short, type, help, default: fallback }: Flag): string {
  const value =
    type.kind === 'boolean'
      ? ''
      : type.kind === 'choice'
        ? ` ${type.of.join('|')}`
        : type.kind === 'count' || type.kind === 'number'
          ? ' N'
          : type.kind === 'span'
            ? ' N|N-M'
            : type.kind === 'bytes'
              ? ' SIZE'
              : ' TEXT'
  const left = `  --${name}${short ? `, -${short}` : ''}${value}`
  const right = `${help} [${fallback}]`
  return left.length < 34 ? `${left.padEnd(34)}${right}` : `${left}\n${' '.repeat(34)}${right}`
}
