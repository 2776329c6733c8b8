import { existsSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Published config.json files without weights, for measuring with random ones. */
const root = fileURLToPath(new URL('../../shapes', import.meta.url))

export const shapeNames = (): string[] => readdirSync(root).sort()

/** The folder of a shape; undefined for what is none, and for a folder of that name. */
export const shapeFolder = (name: string): string | undefined =>
  shapeNames().includes(name) && !existsSync(name) ? `${root}/${name}` : undefined
