// npm start [-- MODEL] [-- OPTIONS OF aphrodite run]: installs, builds, and serves the demo model.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build, root } from './workspace.mjs'

await build()
const args = process.argv.slice(2)
const model = args[0] && !args[0].startsWith('-') ? [] : [join(root, 'packages/demo-model/model'), '--served-model-name', 'demo']
process.argv.splice(2, Number.POSITIVE_INFINITY, 'run', ...model, ...args)
await import(pathToFileURL(join(root, 'packages/cli/dist/main.js')).href)
