import { LLM, type LLMInfo } from '@aphrodite/llm'
import { createServer } from '@aphrodite/server'
import type { Command } from '../command.ts'
import { cliError } from '../errors.ts'
import { ENGINE_GROUPS, SERVER } from '../flags.ts'
import { llmOptions } from '../llm-options.ts'
import { gigabytes, progressPrinter, thousands } from '../progress.ts'
import type { Settings } from '../settings.ts'

export const runCommand: Command = {
  name: 'run',
  usage: 'run MODEL',
  summary: "Serves a model over HTTP with OpenAI's endpoints.",
  groups: [...ENGINE_GROUPS, SERVER],
  async run({ settings, positionals }) {
    const started = performance.now()
    const llm = await LLM.create({ ...llmOptions(positionals, settings, 'run'), onProgress: progressPrinter() })
    const app = createServer(llm, serverOptions(settings))
    const host = (settings.get('host') as string | undefined) ?? '127.0.0.1'
    const port = (settings.get('port') as number | undefined) ?? 2242
    try {
      await app.listen({ host, port })
    } catch (error) {
      await llm.close()
      throw listenError(error, host, port)
    }
    const address = app.server.address()
    const url = `http://${host.includes(':') ? `[${host}]` : host}:${typeof address === 'object' && address ? address.port : port}`
    console.log(banner(llm.info, url, (performance.now() - started) / 1000, llm.hasChatTemplate))
    await stopSignal()
    console.log('stopping: no new requests; running ones end')
    await app.close()
    await llm.close()
    return 0
  },
}

function serverOptions(settings: Settings) {
  const apiKey = settings.get('api-key') as string | undefined
  const corsOrigins = settings.get('cors-origin') as readonly string[] | undefined
  const bodyLimit = settings.get('body-limit') as number | undefined
  const logRequests = settings.get('log-requests') as boolean | undefined
  return {
    ...(apiKey !== undefined && { apiKey }),
    ...(corsOrigins !== undefined && { corsOrigins }),
    ...(bodyLimit !== undefined && { bodyLimit }),
    ...(logRequests !== undefined && { logRequests }),
  }
}

function listenError(error: unknown, host: string, port: number): unknown {
  const code = (error as NodeJS.ErrnoException).code
  if (code === 'EADDRINUSE')
    return cliError(
      'PORT_IN_USE',
      `${host}:${port} is taken by another process. Stop it, or take another: --port ${port + 1}, or --port 0 for any free one.`,
    )
  if (code === 'EACCES') return cliError('PORT_IN_USE', `this user may not listen on port ${port}. Take one above 1023: --port 2242`)
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND')
    return cliError(
      'PORT_IN_USE',
      `${host} is no address of this machine. 127.0.0.1 is this machine alone, 0.0.0.0 every network it is on.`,
    )
  return error
}

function banner(info: LLMInfo, url: string, seconds: number, chat: boolean): string {
  const { ledger } = info
  const curl = chat
    ? `curl ${url}/v1/chat/completions -H 'content-type: application/json' -d '{"messages": [{"role": "user", "content": "What is 31 + 65?"}], "temperature": 0}'`
    : `curl ${url}/v1/completions -H 'content-type: application/json' -d '{"prompt": "Once upon a time", "max_tokens": 32}'`
  return `
  Aphrodite is ready (${seconds.toFixed(1)} s)

  model       ${info.model} (${info.architecture}, ${thousands(info.parameters)} parameters)
  device      ${info.device}
  dtype       ${info.dtype}
  threads     ${info.threads}
  KV cache    ${gigabytes(ledger.cache)}: ${thousands(ledger.cacheTokens)} tokens, up to ${thousands(info.maxModelLen)} a sequence
  memory      ${gigabytes(ledger.weights)} weights, ${gigabytes(ledger.workspace)} workspace

  ${url}/v1/chat/completions
  ${url}/v1/completions
  ${url}/v1/models
  ${url}/openapi.json

  ${curl}
`
}

/** Resolves at the first SIGINT or SIGTERM; a second one ends the process at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    let asked = false
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        if (asked) process.exit(130)
        asked = true
        resolve()
      })
    }
  })
}
