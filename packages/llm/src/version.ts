import { readFileSync } from 'node:fs'

/** The package's version: package.json lies beside src as beside dist. */
export const version: string = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string })
  .version
