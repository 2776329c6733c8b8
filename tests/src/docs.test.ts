import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const packages = readdirSync(join(root, 'packages'))

/** The codes in a package's errors.ts: the members of its `…_ERRORS = [ … ] as const`. */
function codesOf(name: string): string[] {
  let text: string
  try {
    text = readFileSync(join(root, 'packages', name, 'src/errors.ts'), 'utf8')
  } catch {
    return []
  }
  const list = /_ERRORS = \[([^\]]*)\]/.exec(text)?.[1] ?? ''
  return [...list.matchAll(/'([A-Z0-9_]+)'/g)].map((m) => m[1]!)
}

describe('docs/reference/errors.md', () => {
  const documented = readFileSync(join(root, 'docs/reference/errors.md'), 'utf8')
  const rows = [...documented.matchAll(/^\| `([A-Z0-9_]+)` \|/gm)].map((m) => m[1]!)
  const codes = packages.flatMap(codesOf)

  test('describes every code that the packages raise', () => {
    expect(codes.filter((c) => !rows.includes(c))).toEqual([])
  })

  test('describes no code that nobody raises', () => {
    expect(rows.filter((c) => !codes.includes(c))).toEqual([])
  })

  test('describes no code that is only listed: each is raised in some source, TypeScript or native', () => {
    const sources = packages
      .flatMap((name) => ['src', 'native'].map((dir) => join(root, 'packages', name, dir)))
      .filter((dir) => existsSync(dir))
      .flatMap((dir) => readdirSync(dir, { recursive: true, withFileTypes: true }))
      .filter((e) => e.isFile() && /\.(ts|cc|h)$/.test(e.name) && e.name !== 'errors.ts')
      .map((e) => readFileSync(join(e.parentPath ?? e.path, e.name), 'utf8'))
      .join('\n')
    expect(codes.filter((c) => !sources.includes(`'${c}'`) && !sources.includes(`"${c}"`))).toEqual([])
  })
})

describe('docs/reference/environment.md', () => {
  test('describes every variable that the command line reads, and no other', async () => {
    const documented = readFileSync(join(root, 'docs/reference/environment.md'), 'utf8')
    const rows = [...documented.matchAll(/^\| `(APHRODITE_[A-Z0-9_]+)` \|/gm)].map((m) => m[1]!)
    const { everyVariable } = await import('@aphrodite/cli')
    expect([...rows].sort()).toEqual([...everyVariable()].sort())
  })
})
