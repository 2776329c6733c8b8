// Prints every import that runs against the layers of docs/architecture.md, and every index.ts that does more than re-export.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './workspace.mjs'

const L1 = ['tensor']
/** What each package may import. `testing` is for tests alone: nobody's src may import it. */
const ALLOWED = {
  tensor: [],
  testing: ['tensor', 'kernels-cpu', 'kernels-cuda', 'layers', 'models', 'engine'],
  'kernels-cpu': L1,
  'kernels-cuda': L1,
  loader: L1,
  tokenizer: L1,
  layers: L1,
  models: ['tensor', 'layers'],
  engine: ['tensor', 'layers'],
  llm: ['tensor', 'kernels-cpu', 'kernels-cuda', 'loader', 'tokenizer', 'layers', 'models', 'engine'],
  server: ['tensor', 'llm'],
  cli: ['tensor', 'llm', 'server'],
  'demo-model': [],
}
const problems = []
const IMPORT =
  /(?:^|\s)(?:import|export)\s[^'"]*?from\s*['"](@aphrodite\/[^'"]+)['"]|import\(\s*['"](@aphrodite\/[^'"]+)['"]\s*\)|^import\s+['"](@aphrodite\/[^'"]+)['"]/gm

for (const [name, allowed] of Object.entries(ALLOWED)) {
  const folder = join(root, 'packages', name)
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  for (const dependency of Object.keys(manifest.dependencies ?? {})) {
    const to = dependency.match(/^@aphrodite\/(.+)$/)?.[1]
    if (to && !allowed.includes(to)) problems.push(`packages/${name}/package.json depends on ${dependency}`)
  }
  if (!existsSync(join(folder, 'src'))) continue
  for (const entry of readdirSync(join(folder, 'src'), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ts')) continue
    const path = join(entry.parentPath ?? entry.path, entry.name)
    const text = readFileSync(path, 'utf8')
    for (const match of text.matchAll(IMPORT)) {
      const target = match[1] ?? match[2] ?? match[3]
      // For what runs models, not for what models are: of the package models, the registry alone.
      const internal = target === '@aphrodite/layers/internal' && (name !== 'models' || entry.name === 'registry.ts')
      const to = target.slice('@aphrodite/'.length, internal ? -'/internal'.length : undefined)
      const line = text.slice(0, match.index).split('\n').length
      if (to.includes('/')) problems.push(`${path.slice(root.length + 1)}:${line} reaches into a package: ${target}`)
      else if (!allowed.includes(to))
        problems.push(
          `${path.slice(root.length + 1)}:${line} imports ${target}; ${name} may import only ${allowed.join(', ') || 'nothing'}`,
        )
    }
    if (entry.name === 'index.ts' && name !== 'demo-model') {
      const other = text
        .replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
        .replace(/export\s+(?:type\s+)?(?:\*|\{[^}]*\})(?:\s+as\s+\w+)?\s*(?:from\s*['"][^'"]+['"])?;?/g, '')
        .trim()
      if (other) problems.push(`${path.slice(root.length + 1)} does more than re-export: ${other.split('\n')[0]}`)
    }
  }
}
for (const problem of problems) console.error(problem)
console.log(problems.length ? `layers: ${problems.length} problems` : 'layers: every import runs downwards')
process.exit(problems.length ? 1 : 0)
