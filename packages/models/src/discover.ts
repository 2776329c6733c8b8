import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { installed, type ModuleRegistration, modelsOf, readManifest, record, upwards } from './manifest.ts'

/**
 * The models of a project: its own, and those of the packages that its package.json names, the nearest one from `folder` upwards.
 * They say so in their package.json: `"aphrodite": { "models": { "XForCausalLM": "./x.js" } }`. Nothing is imported. Throws
 * BAD_MODEL_MODULE for a package.json that says it wrongly.
 */
export function discoverModels(folder: string): ModuleRegistration[] {
  for (const home of upwards(folder)) {
    if (!existsSync(join(home, 'package.json'))) continue
    const project = readManifest(join(home, 'package.json'))
    const names = ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((key) => Object.keys(record(project?.[key])))
    const packages = [...new Set(names)].flatMap((name) => installed(name, home) ?? [])
    return [home, ...packages].flatMap((at) => modelsOf(at) ?? [])
  }
  return []
}
