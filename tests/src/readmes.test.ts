import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const bin = (name: string) => join(root, 'node_modules/.bin', name)
const files = [
  ...readdirSync(join(root, 'packages')).map((p) => `packages/${p}/README.md`),
  'README.md',
  ...readdirSync(join(root, 'docs/guides')).map((g) => `docs/guides/${g}`),
]
const snippets = files.flatMap((file) =>
  [...readFileSync(join(root, file), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```/gm)].map((m, i) => ({
    name: `${file} #${i + 1}`,
    code: m[1]!,
  })),
)

test('every package has a README with a snippet', () => {
  const without = files.filter((f) => f.startsWith('packages/') && !snippets.some((s) => s.name.startsWith(`${f} `)))
  expect(without).toEqual([])
})

test.each(snippets)('$name type-checks and runs as written', async ({ code }) => {
  // Inside tests/, where every package of the workspace is installed.
  const dir = mkdtempSync(join(root, 'tests/.snippet-'))
  try {
    writeFileSync(join(dir, 'snippet.ts'), code)
    writeFileSync(
      join(dir, 'tsconfig.json'),
      JSON.stringify({
        extends: '../../tsconfig.base.json',
        compilerOptions: { rootDir: '.', outDir: 'out', composite: false, noUnusedLocals: false, noUnusedParameters: false },
        include: ['snippet.ts'],
        exclude: [],
      }),
    )
    writeFileSync(join(dir, 'package.json'), '{ "type": "module" }')
    await promisify(execFile)(bin('tsc'), ['-p', dir], { cwd: root }).catch((e: { stdout?: string }) => expect.fail(e.stdout || String(e)))
    await promisify(execFile)(process.execPath, [join(dir, 'out/snippet.js')], { cwd: dir, timeout: 60_000 })
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})
