import type { Command } from '../command.ts'
import { cliError } from '../errors.ts'
import { ENGINE_GROUPS, type FlagGroup, SAMPLING } from '../flags.ts'
import { llmOptions, samplingParams } from '../llm-options.ts'
import { progressPrinter } from '../progress.ts'
import { startModel } from '../start-model.ts'

const GENERATE: FlagGroup = {
  title: 'Generate',
  flags: [
    { name: 'chat', type: { kind: 'boolean' }, help: "put the prompt into the model's chat template", default: 'false' },
    { name: 'stats', type: { kind: 'boolean' }, help: 'print tokens and times on stderr', default: 'false' },
  ],
}

export const generateCommand: Command = {
  name: 'generate',
  usage: 'generate MODEL [PROMPT]',
  summary: 'Continues a prompt (or standard input) and prints the text.',
  groups: [GENERATE, SAMPLING, ...ENGINE_GROUPS],
  async run({ settings, positionals }) {
    const [model, ...words] = positionals
    const prompt = words.length ? words.join(' ') : process.stdin.isTTY ? undefined : await readAll(process.stdin)
    if (prompt === undefined)
      throw cliError('BAD_COMMAND', 'aphrodite generate needs a prompt: as words after the model, or on standard input')
    const llm = await startModel({ ...llmOptions(model === undefined ? [] : [model], settings, 'generate'), onProgress: progressPrinter() })
    try {
      const started = performance.now()
      let first = 0
      let tokens = 0
      const request = settings.get('chat') ? { messages: [{ role: 'user', content: prompt }] } : prompt
      for await (const delta of llm.stream(request, samplingParams(settings))) {
        if (tokens === 0) first = performance.now()
        tokens += delta.tokenIds.length
        process.stdout.write(delta.text)
      }
      process.stdout.write('\n')
      if (settings.get('stats')) {
        const rate = tokens > 1 ? ((tokens - 1) / (performance.now() - first)) * 1000 : 0
        console.error(`${tokens} tokens, first after ${(first - started).toFixed(0)} ms, then ${rate.toFixed(1)} tokens/s`)
      }
    } finally {
      await llm.close()
    }
    return 0
  },
}

async function readAll(stream: NodeJS.ReadableStream): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks).toString('utf8')
}
