import type { Reading } from '@aphrodite/tensor'
import type { PendingPromptRows } from './prompt-rows.ts'
import type { PendingReports } from './sampler.ts'
import type { Sequence } from './sequence.ts'

/** A step that is enqueued, and what will have to be known of its sequences when its tokens arrive: by then they have gone on. */
export class PendingStep {
  readonly batch: Sequence[] = []
  /** For each of the batch: tokens in its cache after the step, its epoch, whether the step reached the end of it. */
  readonly computed: number[] = []
  readonly epochs: number[] = []
  readonly reachedEnd: boolean[] = []
  /** Those that drew, in the order of `tokens`. */
  readonly drawing: Sequence[] = []
  /** i32 [drawing], or one element of nobody's: a step is always waited for. */
  tokens: Reading | undefined
  reports: PendingReports | undefined
  prompts: PendingPromptRows[] = []

  /** The step is enqueued: its sequences go on. */
  advance(): void {
    const { batch, computed, epochs, reachedEnd, drawing } = this
    for (let r = 0; r < drawing.length; r++) drawing[r]!.drawnRow = r
    // Arrays that keep their length from step to step cost nothing.
    computed.length = epochs.length = reachedEnd.length = batch.length
    for (let i = 0; i < batch.length; i++) {
      const s = batch[i]!
      reachedEnd[i] = s.reachesEnd
      s.advance()
      computed[i] = s.computed
      epochs[i] = s.epoch
    }
  }
}
