// The other side of serving.ts, in a process of its own: streams for so many seconds, or so many requests of mixed kinds.
interface Job {
  readonly url: string
  readonly streams?: number
  readonly seconds?: number
  readonly requests?: number
  readonly first?: number
}

const post = (url: string, body: object, signal?: AbortSignal): Promise<Response> =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'model', temperature: 0, ...body }),
    ...(signal && { signal }),
  })

const ids = (length: number, seed: number): number[] => Array.from({ length }, (_, i) => (i * 31 + seed * 17 + 5) % 400)

/** Streams that begin anew whenever they end, for so long. */
async function stream({ url, streams = 8, seconds = 8 }: Job): Promise<Record<string, number>> {
  const end = performance.now() + seconds * 1000
  let events = 0
  const one = async (i: number) => {
    for (let round = 0; performance.now() < end; round++) {
      const response = await post(url, { prompt: ids(16, i + 100 * round), max_tokens: 200, ignore_eos: true, stream: true })
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
      for await (const chunk of response.body!) {
        events += Buffer.from(chunk).toString('latin1').split('data: ').length - 1
        if (performance.now() > end) break
      }
    }
  }
  await Promise.all(Array.from({ length: streams }, (_, i) => one(i)))
  return { eventsPerSecond: Math.round(events / seconds) }
}

/** Whole answers, streams, streams that are broken off, and refusals, 16 at a time. */
async function requests({ url, requests: count = 100, first = 0 }: Job): Promise<Record<string, number>> {
  let next = first
  let failed = 0
  const one = async (i: number) => {
    const body = { prompt: ids(8 + (i % 40), i), max_tokens: 4 + (i % 29), ignore_eos: true }
    if (i % 10 === 3) {
      const stop = new AbortController()
      const response = await post(url, { ...body, max_tokens: 500, stream: true }, stop.signal)
      await response.body!.getReader().read()
      stop.abort()
    } else if (i % 10 === 7) {
      const response = await post(url, { ...body, max_tokens: -1 })
      if (response.status !== 400) failed++
      await response.text()
    } else {
      const response = await post(url, { ...body, stream: i % 2 === 0 })
      if (!response.ok) failed++
      await response.text()
    }
  }
  const worker = async () => {
    while (next < first + count) await one(next++)
  }
  await Promise.all(Array.from({ length: 16 }, worker))
  return { failed }
}

process.once('message', async (job: Job) => {
  let answer: object
  try {
    answer = job.requests === undefined ? await stream(job) : await requests(job)
  } catch (error) {
    answer = { error: error instanceof Error ? `${error.message} ${error.cause ?? ''}` : String(error) }
  }
  process.send!(answer, () => process.exit(0))
})
