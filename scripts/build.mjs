// npm run build: installs the workspace's packages and builds native code and TypeScript, where they are not up to date.
import { build } from './workspace.mjs'

await build()
