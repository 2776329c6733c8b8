import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { modelPath } from '@aphrodite/demo-model'
import { afterEach, describe, expect, test } from 'vitest'
import { bin, leftovers, missing, type Program, start } from './rank-programs.ts'

/** The shell blocks of the guide that can be run on one machine, as they are but for where the program and the model are. */
const guide = readFileSync(fileURLToPath(new URL('../../docs/guides/tensor-parallelism.md', import.meta.url)), 'utf8')
const blocks = [...guide.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map((m) => m[1]!)
const here = (beginning: string): string => {
  const found = blocks.filter((block) => block.startsWith(beginning))
  expect(found).toHaveLength(1)
  return found[0]!
}
const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

const running: Program[] = []
afterEach(async () => {
  for (const { child, ended } of running.splice(0)) {
    child.kill('SIGTERM')
    await ended
  }
  expect(leftovers()).toEqual([])
})

const env = { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1', APHRODITE_KV_CACHE_SIZE: '32MiB', APHRODITE_THREADS: '1' }
const ANSWER = /31 \+ 65 = 96/

/** Serves by a block of the guide, asks, and stops it. */
async function serves(block: string): Promise<number | null> {
  const [port, rendezvous] = [await freePort(), await freePort()]
  const script = block
    .replaceAll('aphrodite run MODEL', `exec '${process.execPath}' '${bin}' run '${modelPath}'`)
    .replaceAll(/^(mpirun .*?)exec /gm, 'exec $1')
    .replaceAll(/^(\w+=.*?)exec (.*[^&]$)/gm, '$1 exec $2')
    .replaceAll(/^(\w+=.*?)exec (.*&$)/gm, '$1 $2')
    .replaceAll('MASTER_PORT=29500', `MASTER_PORT=${rendezvous}`)
  const program = start('bash', ['-c', script], { ...env, APHRODITE_PORT: String(port) })
  running.push(program)
  await expect.poll(program.output, { timeout: 30_000 }).toMatch(/Aphrodite is ready|rror/)
  expect(program.output()).toMatch(/ranks {7}2/)
  expect(program.output().match(/is ready/g)).toHaveLength(1)
  const answer = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: modelPath, temperature: 0, messages: [{ role: 'user', content: 'What is 31 + 65?' }] }),
  })
  expect(await answer.text()).toMatch(ANSWER)
  program.child.kill('SIGTERM')
  return program.ended
}

const noMpi = missing('mpirun', ['--version'])
if (noMpi) console.warn(`mpirun is not tried: ${noMpi}`)

describe('the guide', () => {
  test('-tp 2', async () => expect(await serves(here('aphrodite run MODEL -tp 2'))).toBe(0))
  test('two processes with the variables of torchrun', async () => expect(await serves(here('RANK=1 WORLD_SIZE=2'))).toBe(0))

  test.skipIf(noMpi)('mpirun -n 2', async () => expect(await serves(here('mpirun -n 2'))).not.toBeNull()) // its status is its own
})

// Models that share in different ways: heads in groups, merged projections, norms of heads, caps. Every fixture passes by hand.
test.skipIf(noMpi).each(['llama', 'phi3', 'qwen3', 'gemma2'])('mpirun -n 2 computes what one rank does: %s', async (fixture) => {
  const folder = fileURLToPath(new URL(`../fixtures/hf/${fixture}`, import.meta.url))
  const verify = [bin, 'verify', folder, '--dtype', 'float32', '--no-runs']
  const program = start('mpirun', ['-n', '2', process.execPath, ...verify], env)
  running.push(program)
  expect(await program.ended).toBe(0)
  const errors = [...program.output().matchAll(/logits off by (\S+),/g)].map((m) => Number(m[1]))
  expect(errors).toHaveLength(3)
  expect(Math.max(...errors)).toBeLessThan(1e-5)
})

/** Two machines as far as the network and shared memory go: ranks can only talk over TCP. */
const NAMESPACES = `
set -e
S=aph$$
cleanup() { ip netns del "$S"a; ip netns del "$S"b; }
ip netns add "$S"a; ip netns add "$S"b; trap cleanup EXIT
ip link add "$S"x type veth peer name "$S"y
ip link set "$S"x netns "$S"a; ip link set "$S"y netns "$S"b
ip -n "$S"a addr add 10.87.0.1/24 dev "$S"x; ip -n "$S"b addr add 10.87.0.2/24 dev "$S"y
ip -n "$S"a link set lo up; ip -n "$S"b link set lo up; ip -n "$S"a link set "$S"x up; ip -n "$S"b link set "$S"y up
export WORLD_SIZE=2 MASTER_ADDR=10.87.0.1 MASTER_PORT=29500
rank() { ns=$1; shift; ip netns exec "$S$ns" unshare -m sh -c 'mount -t tmpfs tmpfs /dev/shm; exec "$@"' sh "$@"; }
RANK=1 rank b "$@" & other=$!
RANK=0 rank a "$@" && wait $other
`
const noNamespaces = missing('bash', ['-c', 'ip netns add aph-try && ip netns del aph-try && unshare -m true'])
if (noNamespaces) console.warn(`two network namespaces are not tried: ${noNamespaces}`)

describe.skipIf(noNamespaces)('between two hosts', () => {
  const generate = [bin, 'generate', modelPath, '--chat', '--temperature', '0', 'What is 31 + 65?']
  const across = async (secret: Record<string, string>): Promise<{ status: number | null; output: string }> => {
    const program = start('bash', ['-c', NAMESPACES, 'ranks', process.execPath, ...generate], { ...env, ...secret })
    running.push(program)
    return { status: await program.ended, output: program.output() }
  }

  test('ranks sum over TCP', async () => {
    const { status, output } = await across({ APHRODITE_SECRET: 'only the two of us know it' })
    expect(output).toMatch(ANSWER)
    expect(status).toBe(0)
  })

  test('no rank starts without a secret', async () => {
    const { status, output } = await across({ APHRODITE_SECRET: '' })
    expect(output.match(/BAD_RANK: rank 0 is at 10\.87\.0\.1, which others can reach: set APHRODITE_SECRET/g)).toHaveLength(2)
    expect(status).toBe(1)
  })
})

test('ranks that were started for different things say so', async () => {
  const port = String(await freePort())
  const common = { ...env, WORLD_SIZE: '2', MASTER_ADDR: '127.0.0.1', MASTER_PORT: port }
  const rank = (r: number, ...more: string[]): Program =>
    start(process.execPath, [bin, 'generate', modelPath, 'Once', ...more], { ...common, RANK: String(r) })
  const [zero, one] = [rank(0), rank(1, '--max-num-seqs', '8')]
  running.push(zero, one)
  expect([await zero.ended, await one.ended]).toEqual([1, 1])
  for (const { output } of [zero, one]) expect(output()).toContain('rank 1 was started with maxNumSeqs 8, rank 0 with 256')
})
