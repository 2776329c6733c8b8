// Parts of the release dry run that a user of packed packages would do: serve a model of somebody else's package, and import
// @aphrodite/layers by itself.
import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readTensors } from '../packages/llm/dist/index.js'

/** Starts `npx aphrodite run` in a folder; resolves with its URL, or with what it said when it ends. */
async function serve(folder, args, env) {
  const child = spawn('npx', ['--no-install', 'aphrodite', 'run', ...args], { cwd: folder, env, stdio: 'pipe', detached: true })
  let output = ''
  const url = await new Promise((resolve, reject) => {
    const read = (chunk) => {
      output += chunk
      const listening = /(http:\/\/127\.0\.0\.1:\d+)\/v1\/models/.exec(output)
      if (listening) resolve(listening[1])
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.on('exit', (code) => reject(new Error(`aphrodite run ended with ${code}: ${output}`)))
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  return {
    url,
    output: () => output,
    async stop() {
      process.kill(-child.pid, 'SIGTERM')
      await ended
    },
  }
}

/** Serves the example with --plugin and asks it over HTTP; throws where it does not say what its reference says. */
export async function serveExample(folder, env, ranks) {
  const checkpoint = join(folder, 'node_modules/lantern-model/checkpoint')
  const greedy = readTensors(join(checkpoint, 'reference.safetensors')).ints('greedy.1')
  const expected = greedy.map((id) => String.fromCharCode(id + 32)).join('')
  const flags = [
    '--plugin',
    'lantern-model',
    '--port',
    '0',
    '--device',
    'cpu',
    '--dtype',
    'float32',
    '--tensor-parallel-size',
    String(ranks),
  ]
  const server = await serve(folder, [checkpoint, '--served-model-name', 'lantern', ...flags], env)
  try {
    const post = async (path, body) => {
      const response = await fetch(`${server.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'lantern', temperature: 0, max_tokens: greedy.length, ...body }),
      })
      const answer = await response.json()
      if (!response.ok) throw new Error(`${path}: ${JSON.stringify(answer)}`)
      return answer.choices[0]
    }
    const question = 'What do you see?'
    const answers = [
      (await post('/v1/completions', { prompt: question })).text,
      (await post('/v1/chat/completions', { messages: [{ role: 'user', content: question }] })).message.content,
    ]
    if (answers.some((answer) => answer !== expected))
      throw new Error(`lantern answered ${JSON.stringify(answers)} where its reference has ${JSON.stringify(expected)}`)
    return expected
  } catch (error) {
    throw new Error(`${error.message}\n${server.output()}`, { cause: error })
  } finally {
    await server.stop()
  }
}

/** What `npm install @aphrodite/layers` puts into an empty project: its size in bytes. Throws where it, or importing it, brings native code. */
export function layersAlone(folder, dependencies, run) {
  mkdirSync(folder, { recursive: true })
  const wanted = Object.fromEntries(['@aphrodite/layers', '@aphrodite/tensor'].map((n) => [n, dependencies[n].replace('./', '../')]))
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'layers-alone', private: true, type: 'module', dependencies: wanted }))
  run('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error'], folder)
  const files = readdirSync(join(folder, 'node_modules'), { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => join(e.parentPath ?? e.path, e.name))
  const native = files.filter((f) => /\.(node|so|dll|dylib|wasm)$/.test(f))
  if (native.length) throw new Error(`@aphrodite/layers brings native code: ${native.join(', ')}`)
  const program = `process.dlopen = (_, file) => { throw new Error('loads ' + file) }
    const layers = await import('@aphrodite/layers')
    const loaded = process.report.getReport().sharedObjects.filter((f) => f.endsWith('.node'))
    if (loaded.length) throw new Error('loads ' + loaded)
    console.log(Object.keys(layers).length)`
  const exports = Number(run(process.execPath, ['--input-type=module', '-e', program], folder))
  return { bytes: files.reduce((sum, f) => sum + statSync(f).size, 0), exports }
}
