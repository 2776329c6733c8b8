import { join } from 'node:path'
import { LLM, verifyReference, verifyRuns } from '@aphrodite/llm'
import type { Command } from '../command.ts'
import { ENGINE_GROUPS, type FlagGroup } from '../flags.ts'
import { llmOptions } from '../llm-options.ts'
import { progressPrinter } from '../progress.ts'
import { startModel } from '../start-model.ts'

const VERIFY: FlagGroup = {
  title: 'Verify',
  flags: [
    {
      name: 'reference',
      type: { kind: 'string' },
      help: 'safetensors file with prompt.K, logits.K, greedy.K and gap.K',
      default: 'reference.safetensors of the model',
    },
    {
      name: 'runs',
      type: { kind: 'boolean' },
      help: 'also serve the prompts in a crowd, from the prefix cache, in chunks and among 2 ranks, and compare with one at a time',
      default: 'true',
    },
  ],
}

export const verifyCommand: Command = {
  name: 'verify',
  usage: 'verify MODEL',
  summary: 'Compares logits and greedy tokens with a reference file, and ways of serving with each other; exit status 1 when they differ.',
  groups: [VERIFY, ...ENGINE_GROUPS],
  async run({ settings, positionals }) {
    const options = llmOptions(positionals, settings, 'verify')
    const reference = (settings.get('reference') as string | undefined) ?? join(options.model, 'reference.safetensors')
    const llm = await startModel({ ...options, skipTokenizerInit: true, onProgress: progressPrinter() })
    try {
      const report = await verifyReference(llm, reference)
      console.log(
        `${llm.info.model} (${llm.info.architecture}), ${llm.info.dtype} on ${llm.info.device}: logits within ${report.tolerance}, greedy up to a gap of ${report.gap}`,
      )
      for (const p of report.prompts) {
        const logits = p.error === null ? 'logits not compared' : `logits off by ${p.error.toExponential(2)}`
        console.log(
          `  ${p.passed ? 'ok  ' : 'FAIL'} prompt ${p.index} (${p.tokens} tokens): ${logits}, greedy ${p.greedy}${p.note ? ` (${p.note})` : ''}`,
        )
      }
      let passed = report.passed
      // Where the model is shared already, or started as one rank of several, further engines are not this process's to start.
      if (settings.get('runs') !== false && llm.info.tensorParallelSize === 1) {
        const others = await verifyRuns(llm, reference, (more) => LLM.create({ ...options, ...more, skipTokenizerInit: true }), [2])
        for (const run of others)
          console.log(`  ${run.passed ? (run.note ? 'skip' : 'ok  ') : 'FAIL'} ${run.name}${run.note ? `: ${run.note}` : ''}`)
        passed &&= others.every((run) => run.passed)
      }
      console.log(passed ? 'verified' : 'NOT verified')
      return passed ? 0 : 1
    } finally {
      await llm.close()
    }
  },
}
