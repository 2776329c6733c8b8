import { createInterface } from 'node:readline/promises'
import type { ChatMessage, LLM } from '@aphrodite/llm'
import { AphroditeError } from '@aphrodite/tensor'
import type { Command } from '../command.ts'
import { cliError } from '../errors.ts'
import { ENGINE_GROUPS, type FlagGroup, SAMPLING } from '../flags.ts'
import { llmOptions, samplingParams } from '../llm-options.ts'
import { progressPrinter } from '../progress.ts'
import { startModel } from '../start-model.ts'

const CHAT: FlagGroup = {
  title: 'Chat',
  flags: [{ name: 'system', type: { kind: 'string' }, help: 'what the model is told first', default: 'nothing' }],
}

export const chatCommand: Command = {
  name: 'chat',
  usage: 'chat MODEL',
  summary: 'Talks with a model in the terminal.',
  groups: [CHAT, SAMPLING, ...ENGINE_GROUPS],
  async run({ settings, positionals }) {
    const llm = await startModel({ ...llmOptions(positionals, settings, 'chat'), onProgress: progressPrinter() })
    try {
      if (!llm.hasChatTemplate)
        throw cliError('BAD_COMMAND', `${positionals[0]} has no chat template. Give one with --chat-template, or use aphrodite generate.`)
      await converse(llm, settings.get('system') as string | undefined, samplingParams(settings))
    } finally {
      await llm.close()
    }
    return 0
  },
}

async function converse(llm: LLM, system: string | undefined, params: ReturnType<typeof samplingParams>): Promise<void> {
  const beginning: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }]
  let messages = [...beginning]
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  console.log(`${llm.info.model} on ${llm.info.device}. /reset starts again, /exit or Ctrl-D ends, Ctrl-C stops an answer.`)
  terminal.setPrompt('> ')
  let running: AbortController | undefined
  terminal.on('SIGINT', () => (running ? running.abort() : terminal.close()))
  terminal.prompt()
  for await (const line of terminal) {
    const text = line.trim()
    if (text === '/exit') break
    if (text === '/reset') messages = [...beginning]
    else if (text !== '') {
      running = new AbortController()
      messages.push({ role: 'user', content: text })
      try {
        messages.push({ role: 'assistant', content: await answer(llm, messages, params, running.signal) })
      } catch (error) {
        messages.pop()
        if (!(error instanceof AphroditeError)) throw error
        console.log(`${error.code}: ${error.message}`)
      }
      running = undefined
    }
    terminal.prompt()
  }
  terminal.close()
}

async function answer(
  llm: LLM,
  messages: readonly ChatMessage[],
  params: ReturnType<typeof samplingParams>,
  signal: AbortSignal,
): Promise<string> {
  let text = ''
  try {
    for await (const delta of llm.stream({ messages }, params, { signal })) {
      text += delta.text
      process.stdout.write(delta.text)
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
  process.stdout.write('\n')
  return text
}
