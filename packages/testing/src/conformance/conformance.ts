import type { Model } from '@aphrodite/models'
import { testingError } from '../errors.ts'
import { createReferenceDevice } from '../reference/device.ts'
import type { ConformanceReport, VerifyModelOptions } from '../verify-model.ts'
import { engineRuns } from './engine-runs.ts'
import { logitRuns } from './logit-runs.ts'
import { factoryOf, materialOfFolder, promptsFor, randomMaterial, readConfigOf, readReference } from './material.ts'
import { Runner } from './runner.ts'
import { Runs } from './runs.ts'

/** What `verifyModel` does. Throws only where there is nothing to run: a reference or a config that cannot be read. */
export async function conformanceOf(
  model: Model | string,
  { reference: folder, ranks = [2, 3], seed = 1, cuda = true, ...options }: VerifyModelOptions,
): Promise<ConformanceReport> {
  const config = options.config ?? (folder === undefined ? undefined : readConfigOf(folder))
  if (!config) throw testingError('BAD_REFERENCE_FOLDER', 'verifyModel needs a config of a tiny model, or the folder of a reference')
  const architecture =
    options.architecture ?? (typeof model === 'string' ? model : (config['architectures'] as string[] | undefined)?.[0]) ?? 'Model'
  const factory = await factoryOf(model, architecture)
  const create = () => factory(config)

  const runs = new Runs()
  const { vocabSize, maxModelLen } = await create()
  const maxTokens = Math.min(options.maxTokens ?? 96, maxModelLen)
  const material = await runs.attempt('declared and materialised', () =>
    folder === undefined ? randomMaterial(create, options.tensors, seed) : materialOfFolder(folder, create),
  )
  if (!material) return reportOf(architecture, runs)
  if (material.loadNote !== undefined) runs.skip('loadWeights', material.loadNote)
  const prompts = promptsFor(vocabSize, maxTokens - Math.min(20, Math.floor(maxTokens / 4)), seed)
  const reference = folder === undefined ? [] : readReference(folder)

  const truth = await logitRuns(runs, { material, prompts, reference, maxTokens, ranks, cuda })
  // A model whose logits are not there has nothing to schedule.
  if (truth) {
    const device = createReferenceDevice()
    const alone = await create()
    const runner = new Runner(alone, material.weights, device, { dtype: 'f32', maxTokens, load: (w) => material.load(alone, w) })
    try {
      await engineRuns(runs, material, prompts, maxTokens, (prompt, count) => runner.greedy(prompt, count), cuda)
    } finally {
      runner.close()
      device.close()
    }
  }
  return reportOf(architecture, runs)
}

const reportOf = (architecture: string, { all, problems }: Runs): ConformanceReport => ({
  architecture,
  passed: problems.length === 0,
  runs: all,
  problems,
})
