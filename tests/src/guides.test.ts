import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))

interface Fence {
  readonly language: string
  /** Of the file that it is a part of. */
  readonly file: string | undefined
  readonly text: string
}

/** The fences of a guide, in order. One that names a file is appended to it; `sh` is run line by line. */
const fencesOf = (guide: string): Fence[] =>
  [...readFileSync(join(root, 'docs/guides', guide), 'utf8').matchAll(/^```(\w+)(?: (\S+))?\n([\s\S]*?)^```$/gm)].map(
    ([, language, file, text]) => ({ language: language!, file, text: text! }),
  )

describe('adding-a-model.md, from an empty folder to a served model', () => {
  const folder = mkdtempSync(join(root, 'tests/.snippet-guide-'))
  const servers: ChildProcess[] = []
  afterAll(() => {
    for (const server of servers) process.kill(-server.pid!, 'SIGTERM')
    rmSync(folder, { recursive: true, force: true })
  })
  const fences = fencesOf('adding-a-model.md')
  const files = new Map<string, string>()
  for (const { file, text } of fences) if (file) files.set(file, (files.get(file) ?? '') + text)
  const commands = fences.flatMap(({ language, text }) => (language === 'sh' ? text.trim().split('\n') : []))

  let port = 0
  beforeAll(async () => {
    const probe = createServer()
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
    port = (probe.address() as AddressInfo).port
    await new Promise((resolve) => probe.close(resolve))
  })

  // What `npm install` would do: tsc and aphrodite as commands, the packages where tests have them.
  const commandOf = (line: string) =>
    line
      .replaceAll('2299', String(port))
      .replace(/^npx aphrodite /, `node ${join(root, 'packages/cli/bin/aphrodite.js')} `)
      .replace(/^npx /, `${root}node_modules/.bin/`)

  test('has the files that it names', () => {
    mkdirSync(join(folder, 'node_modules'))
    symlinkSync(join(root, 'tests/node_modules/@aphrodite'), join(folder, 'node_modules/@aphrodite'))
    cpSync(join(root, 'tests/fixtures/guide/stablelm'), join(folder, 'checkpoint'), { recursive: true })
    for (const [file, text] of files) {
      mkdirSync(dirname(join(folder, file)), { recursive: true })
      writeFileSync(join(folder, file), text)
    }
    expect([...files.keys()]).toContain('src/stablelm.ts')
    expect(commands.length).toBeGreaterThan(6)
  })

  test.each(commands)('%s', async (line) => {
    const options = { cwd: folder }
    if (line.endsWith('&')) {
      const server = spawn('/bin/sh', ['-c', `exec ${commandOf(line.slice(0, -1))}`], { ...options, detached: true, stdio: 'pipe' })
      servers.push(server)
      await new Promise<void>((resolve, reject) => {
        let said = ''
        for (const stream of [server.stdout!, server.stderr!])
          stream.on('data', (chunk) => {
            said += chunk
            if (/\/v1\/models/.test(said)) resolve()
          })
        server.on('exit', (code) => reject(new Error(`ended with ${code}: ${said}`)))
      })
      return
    }
    const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) =>
      execFile('/bin/sh', ['-c', commandOf(line)], { ...options, timeout: 100_000 }, (error, stdout, stderr) =>
        resolve({ code: error ? (error.code ?? error.signal) : 0, output: stdout + stderr }),
      ),
    )
    expect(code, output).toBe(0)
    if (line.includes(' verify ')) expect(output).toMatch(/^verified$/m)
    if (line.startsWith('curl')) expect(JSON.parse(output).choices[0].finish_reason).toBe('length')
    if (line === 'node serve.js') expect(output).toMatch(/\[\s*(\d+,?\s*){8}\]/)
  })
})

test.each(['olmo2', 'granite'])(
  'a model of another package that was written from the guide, %s, is equal to its reference',
  async (name) => {
    const folder = mkdtempSync(join(root, 'tests/.snippet-guide-'))
    const run = (command: string, ...args: string[]) =>
      new Promise<string>((resolve) =>
        execFile(command, args, { cwd: folder, timeout: 60_000 }, (error, stdout, stderr) => resolve(error ? stdout + stderr : stdout)),
      )
    try {
      const fixture = join(root, 'tests/fixtures/guide', name)
      const options = { target: 'ES2023', module: 'NodeNext', strict: true, types: [], rootDir: '.', outDir: 'dist' }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, include: ['*.ts'] }))
      writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
      cpSync(join(fixture, `${name}.ts`), join(folder, `${name}.ts`))
      expect(await run(join(root, 'node_modules/.bin/tsc'))).toBe('')
      for (const ranks of ['1', '2']) {
        const plugin = ['--plugin', `./dist/${name}.js`, '--device', 'cpu', '--dtype', 'float32', '--tensor-parallel-size', ranks]
        expect(await run(process.execPath, join(root, 'packages/cli/bin/aphrodite.js'), 'verify', fixture, ...plugin)).toMatch(
          /^verified$/m,
        )
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  },
)

test.each(fencesOf('adding-an-op.md').flatMap(({ file, text }) => (file ? [{ file, text }] : [])))(
  'adding-an-op.md quotes $file as it is',
  ({ file, text }) => {
    expect(readFileSync(join(root, file), 'utf8')).toContain(text)
  },
)
