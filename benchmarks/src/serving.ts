// The HTTP server under load, with the demo model: the delay of its event loop while 8 streams decode, and its memory over many
// requests. The clients are another process. JSON lines.
//
//   node benchmarks/dist/serving.js [--streams 8] [--seconds 8] [--requests 2000] [--model DIR (dummy weights)] [--only delay,memory]
import { fork } from 'node:child_process'
import { cpus } from 'node:os'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { modelPath } from '@aphrodite/demo-model'
import { LLM } from '@aphrodite/llm'
import { createServer, listen } from '@aphrodite/server'
import { median, print, round } from './statistics.ts'

const { values } = parseArgs({
  options: {
    streams: { type: 'string', default: '8' },
    seconds: { type: 'string', default: '8' },
    requests: { type: 'string', default: '2000' },
    model: { type: 'string' },
    only: { type: 'string', default: 'delay,memory' },
  },
})
const wants = new Set(values.only.split(','))
const shared = { maxNumSeqs: 64, kvCacheBytes: 256 << 20 }
const llm = await LLM.create(
  values.model
    ? { model: values.model, loadFormat: 'dummy', skipTokenizerInit: true, dtype: 'bfloat16', maxModelLen: 2048, ...shared }
    : { model: modelPath, ...shared },
)
const app = createServer(llm, { servedModelNames: ['model'] })
const url = await listen(app, { port: 0 })
print({
  benchmark: 'serving',
  device: llm.info.device,
  cpu: cpus()[0]?.model.trim(),
  node: process.version,
  parameters: llm.info.parameters,
})

/** Has the client process do a job; its answer. */
function client(job: object): Promise<Record<string, number>> {
  const child = fork(fileURLToPath(new URL('serving-client.js', import.meta.url)))
  child.send({ url, ...job })
  return new Promise((resolve, reject) => {
    child.on('message', (answer) => {
      const { error, ...figures } = answer as { error?: string } & Record<string, number>
      if (error) reject(new Error(error))
      else resolve(figures)
    })
    child.on('exit', (code) => code !== 0 && reject(new Error(`the client ended with status ${code}`)))
  })
}

if (wants.has('delay')) {
  await client({ streams: 2, seconds: 1 })
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const figures = await client({ streams: Number(values.streams), seconds: Number(values.seconds) })
  delay.disable()
  const ms = (nanoseconds: number) => round(nanoseconds / 1e6, 2)
  print({
    measured: 'event loop of the server while streams decode',
    streams: Number(values.streams),
    ...figures,
    delayMs: { p50: ms(delay.percentile(50)), p99: ms(delay.percentile(99)), max: ms(delay.max) },
    targetP99Ms: 20,
  })
}
if (wants.has('memory')) {
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  const parts = 20
  const sizes: number[] = []
  let failed = 0
  for (let part = 0; part < parts; part++) {
    failed += (await client({ requests: Math.ceil(Number(values.requests) / parts), first: part * 1000 }))['failed']!
    collect()
    const { rss, heapUsed } = process.memoryUsage()
    sizes.push(rss / 1e6)
    print({
      requests: Math.ceil((Number(values.requests) * (part + 1)) / parts),
      rssMB: round(rss / 1e6, 1),
      heapMB: round(heapUsed / 1e6, 1),
    })
  }
  const quarter = parts >> 2
  const early = median(sizes.slice(quarter, 2 * quarter))
  const late = median(sizes.slice(-quarter))
  print({
    measured: 'memory over requests',
    requests: Number(values.requests),
    failed,
    secondQuarterMB: round(early, 1),
    lastQuarterMB: round(late, 1),
    growth: round(late / early - 1, 4),
  })
}
await app.close()
await llm.close()
