import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { modelPath } from '@aphrodite/demo-model'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const bin = fileURLToPath(new URL('../../packages/cli/bin/aphrodite.js', import.meta.url))
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/hf/${name}`, import.meta.url))

interface Finished {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

const aphrodite = (
  args: readonly string[],
  { env = {}, input }: { env?: Record<string, string>; input?: string } = {},
): Promise<Finished> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [bin, ...args],
      { env: { ...process.env, APHRODITE_DEVICE: 'cpu', ...env }, timeout: 60_000 },
      (error, stdout, stderr) => resolve({ status: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    )
    child.stdin?.end(input ?? '')
  })

const dir = mkdtempSync(join(tmpdir(), 'aphrodite-cli-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

describe('flags, variables and config files', () => {
  test.each<[string, string[], RegExp]>([
    ['a flag that is not there', ['run', modelPath, '--max-modl-len', '5'], /no flag --max-modl-len.*--max-model-len/],
    ['a value that does not fit', ['run', modelPath, '--port', 'http'], /--port should be a whole number.*"http"/],
    ['a choice', ['run', modelPath, '--dtype', 'float8'], /one of auto, float32/],
    ['a missing value', ['run', modelPath, '--port'], /--port needs a value/],
    ['a command that is not there', ['serv'], /no command "serv"/],
    ['no model', ['run'], /needs a model/],
    ['no such model', ['generate', '/no/such/model', 'Hi'], /\/no\/such\/model/],
    ['no such config file', ['run', modelPath, '--config', '/no/such.yaml'], /\/no\/such\.yaml/],
  ])('%s is an error that names it', async (_, args, message) => {
    const { status, stderr } = await aphrodite(args)
    expect(status).toBe(1)
    expect(stderr).toMatch(message)
    expect(stderr).not.toMatch(/\n\s+at /)
  })

  test('an unknown variable and an unknown key are errors with a suggestion', async () => {
    expect((await aphrodite(['generate', modelPath, 'Hi'], { env: { APHRODITE_MAX_TOKEN: '3' } })).stderr).toMatch(
      /APHRODITE_MAX_TOKEN .*APHRODITE_MAX_TOKENS/,
    )
    writeFileSync(join(dir, 'bad.yaml'), 'max-tokns: 3\n')
    expect((await aphrodite(['generate', modelPath, 'Hi', '--config', join(dir, 'bad.yaml')])).stderr).toMatch(
      /bad\.yaml.*"max-tokns".*max-tokens/,
    )
  })

  test('a flag goes before a variable, a variable before the file', async () => {
    writeFileSync(join(dir, 'good.yaml'), 'max-tokens: 2\ntemperature: 0\ndtype: float32\n')
    const count = async (args: string[], env: Record<string, string>) => {
      const { stderr } = await aphrodite(
        ['generate', modelPath, 'Once upon a time', '--stats', '--config', join(dir, 'good.yaml'), ...args],
        { env },
      )
      return Number(/(\d+) tokens, first/.exec(stderr)?.[1])
    }
    expect(await count([], {})).toBe(2)
    expect(await count([], { APHRODITE_MAX_TOKENS: '3' })).toBe(3)
    expect(await count(['--max-tokens', '4'], { APHRODITE_MAX_TOKENS: '3' })).toBe(4)
  })

  test.each(['run', 'chat', 'generate', 'bench', 'inspect', 'verify', 'doctor'])('%s --help lists its flags in groups', async (command) => {
    const { status, stdout } = await aphrodite([command, '--help'])
    expect(status).toBe(0)
    expect(stdout).toContain(`aphrodite ${command}`)
    expect(stdout).toContain('General:')
  })
})

describe('commands', () => {
  test('generate prints the text alone on stdout', async () => {
    const { status, stdout } = await aphrodite(['generate', modelPath, '--chat', '--temperature', '0'], { input: 'What is 31 + 65?' })
    expect([status, stdout]).toEqual([0, '31 + 65 = 96.\n'])
  })

  test('chat keeps the conversation', async () => {
    const { status, stdout } = await aphrodite(['chat', modelPath, '--temperature', '0'], {
      input: 'What is 2 + 3?\n/reset\nWhat is 4 + 4?\n/exit\n',
    })
    expect(status).toBe(0)
    expect(stdout).toMatch(/2 \+ 3 = 5\.[\s\S]*4 \+ 4 = 8\./)
  })

  test('verify passes on a right model and fails on a wrong reference', async () => {
    const good = await aphrodite(['verify', fixture('qwen3'), '--dtype', 'float32'])
    expect([good.status, good.stdout]).toEqual([
      0,
      expect.stringMatching(
        /ok {3}in a crowd\n.*ok {3}once more, from the prefix cache\n.*ok {3}in chunks of 16 tokens\n.*ok {3}shared among 2 ranks\nverified\n$/,
      ),
    ])
    const wrong = await aphrodite(['verify', fixture('qwen3'), '--reference', join(fixture('llama'), 'reference.safetensors')])
    expect([wrong.status, wrong.stdout]).toEqual([1, expect.stringMatching(/NOT verified\n$/)])
  })

  test('inspect --step shows a decode step before and after fusion, without a GPU', async () => {
    const { status, stdout } = await aphrodite(['inspect', fixture('qwen3'), '--step', '--batch', '2', '--context', '100'])
    expect(status).toBe(0)
    expect(stdout).toMatch(/a decode step of 2 sequences, 100 tokens of context each, in bfloat16 on cuda/)
    expect(stdout).toMatch(/as the model enqueues it: 31 ops\n.*\n.*\n.*\n {2}2 ×\n {4}addRmsNorm/)
    expect(stdout).toMatch(/as it is launched: 16 ops/)
    expect(stdout).toMatch(/fusedAttention\(norms, rotary, cache\) +out bf16 \[2, 128\], cache bf16 ← q bf16 \[2, 4, 32\]/)
    expect(stdout).toMatch(/ 2 {2}norms, rotation and cache in attention/)
  })

  test('inspect shows config, memory plan and weights without loading', async () => {
    const { status, stdout } = await aphrodite(['inspect', modelPath, '--weights'])
    expect(status).toBe(0)
    expect(stdout).toMatch(/hidden_size +256[\s\S]*6,0\d\d,\d{3} parameters[\s\S]*model\.embed_tokens\.weight +bf16 +\[2048, 256\]/)
  })

  test('bench throughput draws lengths, the same for the same seed', async () => {
    const bench = async (...more: string[]) => {
      const sizes = ['--input-len', '5-20', '--output-len', '2-9', '--num-prompts', '6', '--temperature', '0.6', '--json', ...more]
      const { stdout } = await aphrodite(['bench', 'throughput', modelPath, '--load-format', 'dummy', ...sizes])
      return (JSON.parse(stdout) as { configuration: { inputTokens: number; outputTokens: number } }).configuration
    }
    const [one, again, other] = [await bench('--seed', '1'), await bench('--seed', '1'), await bench('--seed', '2')]
    expect([again.inputTokens, again.outputTokens]).toEqual([one.inputTokens, one.outputTokens])
    expect([other.inputTokens, other.outputTokens]).not.toEqual([one.inputTokens, one.outputTokens])
    expect(one.inputTokens).toBeGreaterThanOrEqual(6 * 5)
    expect(one.outputTokens).toBeLessThanOrEqual(6 * 9)
  })

  test.each<[string, string[], RegExp]>([
    ['a span where one number is wanted', ['latency', '--input-len', '5-9'], /--input-len should be one number for latency/],
    ['a span from more to less', ['throughput', '--input-len', '9-5'], /--input-len should be a whole number, or two such as 100-1024/],
    ['one token, which has no next', ['latency', '--output-len', '1'], /--output-len should be at least 2/],
    ['a GPU that is not there', ['latency', '--device', 'cuda:99'], /NO_DEVICE: there is no (CUDA device|GPU 99)/],
    ['a device of no kind', ['latency', '--device', 'tpu'], /device should be auto, cpu, cuda or cuda:N, is "tpu"/],
  ])('bench refuses %s', async (_, [what, ...flags], message) => {
    const { status, stderr } = await aphrodite(['bench', what!, modelPath, ...flags])
    expect([status, stderr]).toEqual([1, expect.stringMatching(message)])
  })

  test('bench knows published shapes by name', async () => {
    const { stdout } = await aphrodite(['bench', '--help'])
    expect(stdout).toMatch(/llama-3\.1-8b, llama-3\.2-1b, qwen3-0\.6b/)
    const { status, stderr } = await aphrodite(['bench', 'latency', 'qwen3-0.6b', '--max-model-len', '99999999'])
    expect([status, stderr]).toEqual([1, expect.stringMatching(/maxModelLen is 99999999; the model goes up to 40960/)])
  })

  test('doctor says what is there', async () => {
    const { stdout } = await aphrodite(['doctor'])
    expect(stdout).toMatch(/cpu +cpu \(/)
    expect(stdout).toMatch(/cuda +(not available: .|cuda:0 \()/)
  })

  test.each(['latency', 'throughput', 'prefill', 'startup'])('bench %s prints its configuration and figures', async (what) => {
    const { status, stdout } = await aphrodite([
      'bench',
      what,
      modelPath,
      '--load-format',
      'dummy',
      '--json',
      '--input-len',
      '16',
      '--output-len',
      '8',
      '--num-prompts',
      '4',
      '--repeat',
      '1',
    ])
    expect(status).toBe(0)
    const result = JSON.parse(stdout) as { configuration: Record<string, unknown>; figures: Record<string, number> }
    expect(result.configuration['dtype']).toBe('bfloat16')
    for (const [name, value] of Object.entries(result.figures)) expect(value, name).toBeGreaterThan(0)
  })
})

describe('run', () => {
  let child: ChildProcess
  let url = ''
  let banner = ''
  beforeAll(async () => {
    child = spawn(process.execPath, [bin, 'run', modelPath, '--port', '0', '--served-model-name', 'demo', '--kv-cache-size', '64MiB'], {
      env: { ...process.env, APHRODITE_DEVICE: 'cpu' },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise<void>((resolve, reject) => {
      child.on('exit', (code) => reject(new Error(`exit ${code}`)))
      child.stdout!.on('data', (chunk: Buffer) => {
        banner += chunk.toString()
        url = /(http:\/\/127\.0\.0\.1:\d+)\/v1\/models/.exec(banner)?.[1] ?? ''
        if (url && /curl .*\n/.test(banner)) resolve()
      })
    })
  })
  afterAll(() => void child.kill('SIGKILL'))

  test('the curl of the banner works when it is pasted', async () => {
    const curl = /curl .*/.exec(banner)![0]
    const out = await new Promise<string>((resolve) =>
      execFile('/bin/sh', ['-c', curl.replace('curl', 'curl -s')], (_, stdout) => resolve(stdout)),
    )
    expect(out).toContain('31 + 65 = 96.')
  })

  test('the banner names model, device, dtype, threads and cache', () => {
    for (const word of ['LlamaForCausalLM', 'cpu (', 'bfloat16', 'threads', 'KV cache', '/openapi.json']) expect(banner).toContain(word)
  })

  test('a port in use is an error that says what to do', async () => {
    const { status, stderr } = await aphrodite(['run', modelPath, '--port', new URL(url).port, '--kv-cache-size', '16MiB'])
    expect(status).toBe(1)
    expect(stderr).toMatch(/PORT_IN_USE: .*another port/)
  })

  test('a server option that does not fit ends it, engine and all', async () => {
    const { status, stderr } = await aphrodite(['run', modelPath, '--port', '0', '--body-limit', '10', '--kv-cache-size', '16MiB'])
    expect([status, stderr]).toEqual([1, expect.stringMatching(/BAD_SERVER_OPTION: bodyLimit/)])
  })

  test('SIGTERM ends it in order', async () => {
    const exit = new Promise<number | null>((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    expect(await exit).toBe(0)
    const probe = createServer()
    await new Promise<void>((resolve, reject) =>
      probe.once('error', reject).listen(Number(new URL(url).port), '127.0.0.1', () => probe.close(() => resolve())),
    )
  })
})
