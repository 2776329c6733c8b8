import { resolveModel } from '@aphrodite/loader'
import type { ResolvedOptions } from './options.ts'

/** Everything but weights: what dummy weights and another model's tokenizer need. */
const NO_WEIGHTS = ['*.json', '*.jinja', '*.model', '*.txt']

/** The folder of a model, downloaded if need be. */
export function findModel(
  model: string,
  { revision, onProgress, loadFormat }: Pick<ResolvedOptions, 'revision' | 'onProgress' | 'loadFormat'>,
  withWeights = loadFormat !== 'dummy',
): Promise<string> {
  return resolveModel(model, {
    ...(revision !== undefined && { revision }),
    ...(!withWeights && { allowPatterns: NO_WEIGHTS }),
    ...(onProgress && {
      onProgress: ({ file, totalReceived, totalSize }) =>
        onProgress(`download: ${((totalReceived / totalSize) * 100).toFixed(0)} % of ${(totalSize / 1e9).toFixed(2)} GB, ${file}`),
    }),
  })
}
