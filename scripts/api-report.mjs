// npm run api: writes down the public API of tensor, layers and models in docs/reference/api, from what was built.
// npm run api -- --check: exit status 1 where it has changed and was not written down, or was without a changeset for its package.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Extractor, ExtractorConfig } from '@microsoft/api-extractor'
import { root } from './workspace.mjs'

const PACKAGES = ['tensor', 'layers', 'models']
const quiet = { default: { logLevel: 'none' } }

/** The report of one entry of a package: what a program that imports it can name. */
function reportOf(folder, declarations, temporary) {
  const reportFileName = 'report'
  const config = ExtractorConfig.prepare({
    configObjectFullPath: join(folder, 'api-extractor.json'),
    packageJsonFullPath: join(folder, 'package.json'),
    configObject: {
      projectFolder: folder,
      mainEntryPointFilePath: join(folder, declarations),
      newlineKind: 'lf',
      compiler: {
        overrideTsconfig: {
          include: ['dist/*.d.ts'],
          compilerOptions: {
            target: 'ES2023',
            lib: ['ES2023', 'ESNext.Disposable'],
            module: 'NodeNext',
            moduleResolution: 'NodeNext',
            rootDir: '.',
            strict: true,
            skipLibCheck: true,
            types: ['node'],
          },
        },
      },
      apiReport: { enabled: true, reportFolder: temporary, reportTempFolder: join(temporary, 'temp'), reportFileName },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: {
        compilerMessageReporting: { default: { logLevel: 'error' } },
        extractorMessageReporting: quiet,
        tsdocMessageReporting: quiet,
      },
    },
  })
  const problems = []
  Extractor.invoke(config, {
    localBuild: true,
    messageCallback(message) {
      if (message.logLevel === 'error') problems.push(message.text)
      message.handled = true
    },
  })
  if (problems.length) throw new Error(`${declarations}: ${problems.join('\n')}`)
  const report = readFileSync(join(temporary, `${reportFileName}.api.md`), 'utf8')
  return report.slice(report.indexOf('```ts'))
}

function writtenDown(name) {
  const folder = join(root, 'packages', name)
  const { exports } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const entries = Object.entries(exports).filter(([path, to]) => path !== './internal' && to.types !== undefined)
  const temporary = mkdtempSync(join(tmpdir(), 'aphrodite-api-'))
  try {
    const parts = entries.map(([path, { types }]) => {
      if (path.includes('*')) throw new Error(`packages/${name}/package.json exports ${path}: name what is public`)
      return `## \`@aphrodite/${name}${path.slice(1)}\`\n\n${reportOf(folder, types, temporary)}`
    })
    return `# The public API of @aphrodite/${name}\n\nWritten by \`npm run api\`. A change of it comes with a changeset.\n\n${parts.join('\n')}`
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
const lines = (text) => text.split('\n').filter(Boolean)

/** The changesets beside the last change of a report: of a branch, of what is not committed, or of the commit that made it. Undefined without git. */
function changesetsBeside(report) {
  try {
    git('rev-parse', '--verify', 'HEAD^')
  } catch {
    return undefined // no history to look at
  }
  const isChangeset = (path) => /^\.changeset\/.*\.md$/.test(path)
  const base = baseOfBranch() ?? 'HEAD'
  if (git('diff', '--name-only', base, '--', report) || git('ls-files', '--others', '--', report)) {
    const changed = [...lines(git('diff', '--name-only', base)), ...lines(git('ls-files', '--others', '--exclude-standard', '.changeset'))]
    return changed.filter((path) => isChangeset(path) && existsSync(join(root, path))).map((path) => readFileSync(join(root, path), 'utf8'))
  }
  const commit = git('log', '-1', '--first-parent', '--format=%H', '--', report)
  const changed = lines(git('diff', '--name-only', '--diff-filter=AM', `${commit}^1`, commit))
  return changed.filter(isChangeset).map((path) => git('show', `${commit}:${path}`))
}

/** Where a branch left main, if this is one. */
function baseOfBranch() {
  try {
    const base = git('merge-base', 'HEAD', 'origin/main')
    return base === git('rev-parse', 'HEAD') ? undefined : base
  } catch {
    return undefined
  }
}

const check = process.argv.includes('--check')
mkdirSync(join(root, 'docs/reference/api'), { recursive: true })
let wrong = 0
for (const name of PACKAGES) {
  const path = `docs/reference/api/${name}.md`
  const now = writtenDown(name)
  const before = existsSync(join(root, path)) ? readFileSync(join(root, path), 'utf8') : ''
  const problems = []
  if (before !== now && check) {
    const first = now.split('\n').find((line, i) => line !== before.split('\n')[i])
    problems.push(`is not what is built, from "${first}" on. Run npm run api, and look at what it changes.`)
  } else if (before !== now) writeFileSync(join(root, path), now)
  const changesets = check ? changesetsBeside(path) : undefined
  if (changesets && !changesets.some((text) => text.includes(`"@aphrodite/${name}":`)))
    problems.push(`has changed without a changeset for @aphrodite/${name}. Run npx changeset.`)
  for (const problem of problems) console.error(`${path} ${problem}`)
  wrong += problems.length
  console.log(`api         ${path}: ${problems.length ? 'wrong' : before === now ? 'up to date' : 'written'}`)
}
process.exit(wrong ? 1 : 0)
