import { inspectModel, inspectStep } from '@aphrodite/llm'
import type { Command } from '../command.ts'
import { ENGINE_GROUPS, type FlagGroup } from '../flags.ts'
import { llmOptions } from '../llm-options.ts'
import { gigabytes, thousands } from '../progress.ts'
import { stepLines } from './inspect-step.ts'

const INSPECT: FlagGroup = {
  title: 'Inspect',
  flags: [
    { name: 'weights', type: { kind: 'boolean' }, help: 'list every tensor', default: 'false' },
    { name: 'step', type: { kind: 'boolean' }, help: 'list the ops of a decode step, before and after fusion for a GPU', default: 'false' },
    { name: 'batch', type: { kind: 'count' }, help: 'with --step: sequences', default: '1' },
    { name: 'context', type: { kind: 'count' }, help: 'with --step: tokens of each sequence', default: '256' },
  ],
}

export const inspectCommand: Command = {
  name: 'inspect',
  usage: 'inspect MODEL',
  summary: 'Shows the config, the memory plan and the weights of a model, without loading it.',
  groups: [INSPECT, ...ENGINE_GROUPS],
  async run({ settings, positionals }) {
    const options = llmOptions(positionals, settings, 'inspect')
    if (settings.get('step')) {
      const shape = Object.fromEntries(['batch', 'context'].flatMap((name) => (settings.has(name) ? [[name, settings.get(name)]] : [])))
      console.log(stepLines(await inspectStep(options, shape)).join('\n'))
      return 0
    }
    const report = await inspectModel(options)
    console.log(`${report.folder}\n`)
    console.log('config')
    for (const [key, value] of Object.entries(report.config)) console.log(`  ${key.padEnd(28)}${JSON.stringify(value)}`)
    console.log('\nmemory plan')
    console.log(`  weights       ${gigabytes(report.weightBytes)} in ${report.dtype}, ${thousands(report.parameters)} parameters`)
    for (const group of report.cacheGroups)
      console.log(
        `  cache         ${group.layers} layers, ${group.kind}: ${gigabytes(group.bytesPerToken)} a token${group.window ? `, the last ${thousands(group.window)}` : ''}`,
      )
    console.log(`  one sequence  ${gigabytes(report.bytesPerSequence)} at ${thousands(report.maxModelLen)} tokens`)
    console.log(`  free memory   ${gigabytes(report.freeMemory)} on ${report.device}`)
    console.log(`\nweights: ${report.weights.length} tensors`)
    const rows = settings.get('weights') ? report.weights : report.weights.slice(0, 12)
    for (const w of rows) console.log(`  ${w.name.padEnd(60)} ${w.dtype.padEnd(6)} [${w.shape.join(', ')}]`)
    if (rows.length < report.weights.length) console.log(`  … and ${report.weights.length - rows.length} more: --weights lists them all`)
    return 0
  },
}
