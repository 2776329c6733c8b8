import { readFileSync } from 'node:fs'

/** The text of a small file of the system, or undefined where there is none. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** A limit of one control group: the text of its file, and the folder that the group's other files are in. */
export interface Limit {
  readonly folder: string
  readonly text: string
}

/**
 * A limit file of this process's control group and of every group around it, each of which binds. `name` is the file's name
 * in version 2, `older` in version 1, where every controller has a tree of its own.
 */
export function limitsOf(controller: string, name: string, older: string): Limit[] {
  const found: Limit[] = []
  const groups = readText('/proc/self/cgroup') ?? ''
  for (const line of groups.split('\n')) {
    const [, controllers = '', path = '/'] = line.match(/^\d+:([^:]*):(.*)$/) ?? []
    const unified = controllers === ''
    if (!unified && !controllers.split(',').includes(controller)) continue
    const root = unified ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controllers}`
    // In a container the path may be the host's, with only the root mounted: the walk ends at the root in any case.
    for (let at = path.replace(/\/$/, ''); ; at = at.slice(0, at.lastIndexOf('/'))) {
      const folder = `${root}${at}`
      const text = readText(`${folder}/${unified ? name : older}`)
      if (text !== undefined) found.push({ folder, text })
      if (at === '') break
    }
  }
  return found
}
