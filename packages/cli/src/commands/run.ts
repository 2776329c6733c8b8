import type { LLMInfo } from '@aphrodite/llm'
import type { ServerOptions } from '@aphrodite/server'
import type { Command } from '../command.ts'
import { ENGINE_GROUPS, SERVER } from '../flags.ts'
import { llmOptions } from '../llm-options.ts'
import { gigabytes, progressPrinter, thousands } from '../progress.ts'
import type { Settings } from '../settings.ts'
import { startModel } from '../start-model.ts'

export const runCommand: Command = {
  name: 'run',
  usage: 'run MODEL',
  summary: "Serves a model over HTTP with OpenAI's endpoints.",
  groups: [...ENGINE_GROUPS, SERVER],
  async run({ settings, positionals }) {
    const started = performance.now()
    const importing = import('@aphrodite/server') // no other command needs it; here it comes while the weights are loaded
    const llm = await startModel({ ...llmOptions(positionals, settings, 'run'), onProgress: progressPrinter() })
    try {
      const { createServer, listen } = await importing
      const app = createServer(llm, serverOptions(settings))
      const host = settings.get('host') as string | undefined
      const port = settings.get('port') as number | undefined
      const url = await listen(app, { ...(host !== undefined && { host }), ...(port !== undefined && { port }) })
      console.log(
        banner(llm.info, modelNames(settings)[0] ?? llm.info.model, url, (performance.now() - started) / 1000, llm.hasChatTemplate),
      )
      await stopSignal()
      console.log('stopping: no new requests; running ones end')
      await app.close()
    } finally {
      await llm.close()
    }
    return 0
  },
}

const modelNames = (settings: Settings): readonly string[] => (settings.get('served-model-name') as readonly string[] | undefined) ?? []

function serverOptions(settings: Settings): ServerOptions {
  const apiKey = settings.get('api-key') as string | undefined
  const corsOrigins = settings.get('cors-origin') as readonly string[] | undefined
  const bodyLimit = settings.get('body-limit') as number | undefined
  const logRequests = settings.get('log-requests') as boolean | undefined
  return {
    ...(modelNames(settings).length > 0 && { servedModelNames: modelNames(settings) }),
    ...(apiKey !== undefined && { apiKey }),
    ...(corsOrigins !== undefined && { corsOrigins }),
    ...(bodyLimit !== undefined && { bodyLimit }),
    // What the server got wrong is told in any case: answers name only the request's id.
    ...(logRequests ? { logRequests, logger: true } : { logger: 'error' }),
  }
}

function banner(info: LLMInfo, name: string, url: string, seconds: number, chat: boolean): string {
  const { ledger } = info
  const curl = chat
    ? `curl ${url}/v1/chat/completions -H 'content-type: application/json' -d '{"model": "${name}", "messages": [{"role": "user", "content": "What is 31 + 65?"}], "temperature": 0}'`
    : `curl ${url}/v1/completions -H 'content-type: application/json' -d '{"model": "${name}", "prompt": "Once upon a time", "max_tokens": 32}'`
  return `
  Aphrodite is ready (${seconds.toFixed(1)} s)

  model       ${info.model} (${info.architecture}, ${thousands(info.parameters)} parameters)
  device      ${info.device}
  dtype       ${info.dtype}
${info.deviceKind === 'cpu' ? `  threads     ${info.threads}\n` : ''}${info.tensorParallelSize > 1 ? `  ranks       ${info.tensorParallelSize}, each with threads, cache and memory as here\n` : ''}  KV cache    ${gigabytes(ledger.cache)} of ${info.kvCacheDtype}: ${thousands(ledger.cacheTokens)} tokens, up to ${thousands(info.maxModelLen)} a sequence
  memory      ${memoryLine(info)}

  ${url}/v1/chat/completions
  ${url}/v1/completions
  ${url}/v1/models
  ${url}/openapi.json

  ${curl}
`
}

/** Where the device's memory went; what nobody here took is the driver's, captured steps', or another process's. */
export function memoryLine({ ledger, freeMemory, deviceKind }: LLMInfo): string {
  const { total, weights, workspace, cache } = ledger
  const other = total - weights - workspace - cache - freeMemory
  const parts = [`${gigabytes(weights)} weights`, `${gigabytes(workspace)} workspace`, `${gigabytes(cache)} cache`]
  if (deviceKind === 'cuda') parts.push(`${gigabytes(Math.max(0, other))} driver, scratch and others`)
  return `${parts.join(', ')}; ${gigabytes(freeMemory)} of ${gigabytes(total)} free`
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
